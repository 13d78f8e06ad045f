"""Certificates of a cluster: an authority of its own, and one certificate for each role."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from builders.executors.dask.tls import ROLES
from zoo.util.errors import UsageError
from zoo.util.files import write_private

_MOST_DAYS = 3650

_EARLIER = datetime.timedelta(minutes=5)  # clocks of machines differ


def make_certs(folder: Path, days: int = 365) -> list[Path]:
    """Makes an authority and a certificate and key for scheduler, workers and clients.

    With the authority's key there already, new certificates are signed by it and those before
    stay valid until they expire.

    Args:
        folder: Where to; nobody else may read it. A machine needs ``ca.pem`` and the two files of
            its role, and never ``ca-key.pem``.
        days: How long certificates are valid; the authority is for ten times as long.

    Returns:
        The files.

    Raises:
        UsageError: ``days`` is not above 0, or the folder has certificates and no authority's key.
    """
    if not 1 <= days <= _MOST_DAYS:
        raise UsageError(
            f"certificates can't be valid for {days} days",
            hint=f"1 to {_MOST_DAYS}; --days 365 is usual",
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca_file, ca_key_file = folder / "ca.pem", folder / "ca-key.pem"
    if ca_file.exists() != ca_key_file.exists():
        there, gone = (ca_file, ca_key_file) if ca_file.exists() else (ca_key_file, ca_file)
        raise UsageError(
            f"{there} is there and {gone} is not: nothing can be signed",
            hint="name an empty folder for a new authority, or the one that has both",
        )
    if ca_file.exists():
        authority, signing = _authority(ca_file, ca_key_file)
    else:
        signing = ec.generate_private_key(ec.SECP256R1())
        authority = _certificate("caft-zoo cluster", signing, None, signing, 10 * days)
        write_private(ca_key_file, _private(signing))
        write_private(ca_file, authority.public_bytes(serialization.Encoding.PEM))
    made = [ca_file, ca_key_file]
    for role in ROLES:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(role, key, authority, signing, days)
        write_private(folder / f"{role}-key.pem", _private(key))
        write_private(folder / f"{role}.pem", certificate.public_bytes(serialization.Encoding.PEM))
        made += [folder / f"{role}.pem", folder / f"{role}-key.pem"]
    return made


def _authority(certificate: Path, key: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Reads an authority's certificate and key.

    Raises:
        UsageError: They are none.
    """
    try:
        authority = x509.load_pem_x509_certificate(certificate.read_bytes())
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    except (ValueError, TypeError, AssertionError) as error:
        raise UsageError(
            f"{certificate} or {key} is damaged, or was not made here",
            hint="name an empty folder for a new authority",
        ) from error
    return authority, loaded


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    signing: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.Certificate:
    """Returns a certificate; the authority's own where there is no issuer."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    is_authority = issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(_usage(is_authority), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if not is_authority:  # scheduler and workers both call and are called
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        named = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(named, critical=False)
    return builder.sign(signing, hashes.SHA256())


def _usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
