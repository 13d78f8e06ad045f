"""Creates a cluster's certificate authority, and a certificate for each role."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from zoo.cluster.tls import ROLES
from zoo.util.errors import UsageError
from zoo.util.files import write_private
from zoo.util.loading import read_regular

_MOST_DAYS = 3650

_EARLIER = datetime.timedelta(minutes=5)  # clocks of machines may differ


def make_certs(folder: Path, days: int = 365) -> list[Path]:
    """Creates an authority, and a certificate and key for scheduler, workers and clients.

    If the folder already has an authority, it signs the new certificates, and earlier ones stay
    valid until they expire.

    Args:
        folder: Output folder, readable by this user only. A machine needs ``ca.pem`` and the two
            files of its role, but never ``ca-key.pem``.
        days: Validity of the certificates; the authority is valid ten times as long.

    Returns:
        Paths of all files.

    Raises:
        UsageError: ``days`` is out of range, or only one of the authority's two files exists.
    """
    if not 1 <= days <= _MOST_DAYS:
        raise UsageError(
            f"certificates can't be valid for {days} days",
            hint=f"use 1 to {_MOST_DAYS}; 365 is usual",
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca_file, ca_key_file = folder / "ca.pem", folder / "ca-key.pem"
    if ca_file.exists() != ca_key_file.exists():
        present, missing = (ca_file, ca_key_file) if ca_file.exists() else (ca_key_file, ca_file)
        raise UsageError(
            f"{present} exists but {missing} does not, so nothing can be signed",
            hint="use an empty folder for a new authority, or the folder that has both files",
        )
    if ca_file.exists():
        authority, signing = _authority(ca_file, ca_key_file)
    else:
        signing = ec.generate_private_key(ec.SECP256R1())
        authority = _certificate("caft-zoo cluster", signing, None, signing, 10 * days)
        write_private(ca_key_file, _private(signing))
        write_private(ca_file, authority.public_bytes(serialization.Encoding.PEM))
    files = [ca_file, ca_key_file]
    for role in ROLES:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(role, key, authority, signing, days)
        write_private(folder / f"{role}-key.pem", _private(key))
        write_private(folder / f"{role}.pem", certificate.public_bytes(serialization.Encoding.PEM))
        files += [folder / f"{role}.pem", folder / f"{role}-key.pem"]
    return files


def _authority(certificate: Path, key: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Reads an authority's certificate and key.

    Raises:
        UsageError: They are damaged, or of another kind of key.
    """
    try:
        authority = x509.load_pem_x509_certificate(read_regular(certificate))
        loaded = serialization.load_pem_private_key(read_regular(key), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    except (ValueError, TypeError, AssertionError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{certificate} or {key} is damaged, or was not created by zoo-farm",
            hint="use an empty folder for a new authority",
        ) from error
    return authority, loaded


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    signing: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.Certificate:
    """Returns a certificate; without an issuer, the authority's own."""
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
    if not is_authority:  # scheduler and workers are both servers and clients
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
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
