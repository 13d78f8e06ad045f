"""The keys that sign a repository: a folder outside the store that is never uploaded.

::

    keys.json        which key signs which role, and the lifetime of signatures
    root.pem         signs the root role: which keys sign which role
    targets.pem      signs the targets role: which key signs the index
    publisher.pem    signs the index: bins, snapshot, timestamp
    root.json        the root to give to users, who then trust the repository
    seen.json        the newest version of the index signed with these keys
    rotation.json    what an interrupted rotation still has to write
    builder.pem      signs the attestations of this machine, the repository's first builder
    builders.json    the builders that the first signature of the repository registers
    lock             held while any of these is written

A folder belongs to one repository, the one whose root it holds. Keys are made, rotated and
remembered by one process at a time.

Private keys are PKCS #8, encrypted if a passphrase is given. Instead of a file, a role may name a
securesystemslib signer, such as a cloud KMS or a hardware token, by its URI.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import BaseModel, ConfigDict, ValidationError
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from builders.publish.builder_list import BUILDERS, Builder, PublicKey
from zoo.stores.base import WITNESS
from zoo.util.errors import TrustError
from zoo.util.files import create_private, write_private
from zoo.util.loading import read_regular
from zoo.util.locks import turn

Role = Literal["root", "targets", "publisher"]
ROLES: tuple[Role, ...] = ("root", "targets", "publisher")

PASSPHRASE = "ZOO_KEYS_PASSPHRASE"
"""Environment variable with the passphrase of key files, for unattended machines."""

_BUILDERS = "builders.json"

BUILDER = "builder.pem"
"""Name of the file of a builder's private key."""

LOCK = "lock"
"""Name of the file in a folder of keys that is locked while one process writes there."""

_WRITTEN = 60.0
"""Seconds in which a file of keys is certainly written; older partial ones are left by kills."""

_LARGEST = 2**20
"""Bytes of a file of a key."""

_UNUSABLE = (OSError, ValueError, TypeError, UnsupportedAlgorithm)
"""What reading a file of a key raises if it can't be used."""

AskPassphrase = Callable[[str], str]
"""Asks for the passphrase of the given key; returns it."""


class Expiry(BaseModel):
    """Lifetime of signatures in days.

    Attributes:
        root: Lifetime of the root role.
        targets: Lifetime of the targets role.
        index: Lifetime of hash bins and snapshot.
        timestamp: Lifetime of the timestamp: how long an attacker who controls the store can
            withhold updates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: int = 365
    targets: int = 365
    index: int = 90
    timestamp: int = 7


UNATTENDED = Expiry(root=3650, targets=3650, index=3650, timestamp=3650)
"""For a personal repository, which no nightly job refreshes."""


class KeyEntry(BaseModel):
    """The key of a role.

    Attributes:
        role: Role that it signs.
        uri: Location of the private key: ``file:root.pem``, beside this file, or a signer's URI.
        keyid: ID of the public key.
        public: The public key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    uri: str
    keyid: str
    public: PublicKey

    @property
    def key(self) -> Key:
        """The public key."""
        return Key.from_dict(self.keyid, self.public.model_dump())


class KeyFile(BaseModel):
    """``keys.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[KeyEntry, ...]
    expiry: Expiry = Expiry()
    bins: int = 16


class KeyRing:
    """A folder of keys.

    Args:
        folder: The folder.
        ask: Asks for a passphrase if a key is encrypted and the environment has none.
    """

    def __init__(self, folder: Path, ask: AskPassphrase) -> None:
        self.folder = folder
        self._ask = ask
        self._signers: dict[str, Signer] = {}
        self.file = _read_keys(folder / "keys.json")

    def read_again(self) -> None:
        """Reads ``keys.json`` again: another process may have rotated a key meanwhile."""
        self.file = _read_keys(self.folder / "keys.json")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until no other process writes to the folder."""
        with _turn(self.folder):
            yield

    @property
    def root_file(self) -> Path:
        """The root to give to users of the repository."""
        return self.folder / "root.json"

    @property
    def builders_file(self) -> Path:
        """The builders that the first signature registers; folders of earlier versions have none.

        Later the signed metadata says who they are.
        """
        return self.folder / _BUILDERS

    @property
    def builder_file(self) -> Path:
        """The key of the builder on this machine."""
        return self.folder / BUILDER

    def entry(self, role: Role) -> KeyEntry:
        """Returns the key of a role."""
        return next(entry for entry in self.file.keys if entry.role == role)

    def signer(self, entry: KeyEntry) -> Signer:
        """Returns the signer of a private key, opened once.

        Raises:
            TrustError: The key is missing or another key, or needs another passphrase or package.
        """
        if entry.keyid not in self._signers:
            self._signers[entry.keyid] = self._open(entry)
        return self._signers[entry.keyid]

    def unlock(self, role: Role) -> None:
        """Opens a role's key if it needs a passphrase, to ask for it before hours of work.

        Raises:
            TrustError: The passphrase is wrong, or there is no terminal to ask at.
        """
        entry = self.entry(role)
        scheme, _, name = entry.uri.partition(":")
        if scheme == "file" and b"ENCRYPTED" in _bytes_of(self.folder / name):
            self.signer(entry)

    def replace(self, entry: KeyEntry) -> None:
        """Replaces a role's key in memory; :meth:`save` writes it."""
        kept = tuple(other for other in self.file.keys if other.role != entry.role)
        self.file = self.file.model_copy(update={"keys": (*kept, entry)})

    def save(self, text: str) -> None:
        """Writes ``keys.json``."""
        self.file = KeyFile.model_validate_json(text)
        write_private(self.folder / "keys.json", text.encode())

    def _open(self, entry: KeyEntry) -> Signer:
        scheme, _, rest = entry.uri.partition(":")
        try:
            if scheme == "file":
                return self._from_file(entry, self.folder / rest)
            return Signer.from_priv_key_uri(entry.uri, entry.key, self._secret)
        except (*_UNUSABLE, UnsupportedLibraryError) as error:
            raise TrustError(
                f"the {entry.role} key {entry.uri} can't be used: {error}",
                hint=f"check its entry in {self.folder / 'keys.json'}; if it is encrypted, set "
                f"{PASSPHRASE}",
            ) from error

    def _from_file(self, entry: KeyEntry, path: Path) -> Signer:
        data = read_regular(path, _LARGEST)
        encrypted = b"ENCRYPTED" in data
        passphrase = self._secret(f"passphrase of {path}") if encrypted else None
        private = load_pem_private_key(data, passphrase.encode() if passphrase else None)
        key = entry.key
        assert isinstance(key, SSlibKey)
        return CryptoSigner(private, key)

    def _secret(self, what: str) -> str:
        return os.environ.get(PASSPHRASE) or self._ask(what)


def _read_keys(path: Path) -> KeyFile:
    """Reads ``keys.json``.

    Raises:
        TrustError: It is missing or malformed.
    """
    try:
        return KeyFile.model_validate_json(read_regular(path))
    except OSError as error:
        raise TrustError(
            f"{path}: {error.strerror}",
            hint="create keys with zoo-farm keys init, or name their folder with --keys",
        ) from error
    except ValidationError as error:
        raise TrustError(f"{path}: not a valid key file: {error.errors()[0]['msg']}") from error


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Waits for the turn at a folder of keys, then removes what killed writers left there."""
    with turn(folder / LOCK):
        for left in folder.glob("*.part"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _WRITTEN:
                    left.unlink()
        yield


def _bytes_of(path: Path) -> bytes:
    try:
        return read_regular(path, _LARGEST)
    except OSError:
        return b""  # signing with it reports what is wrong


def make_keys(
    folder: Path,
    passphrase: str | None,
    *,
    ask: AskPassphrase,
    expiry: Expiry = Expiry(),  # noqa: B008  it is frozen
    bins: int = 16,
    signers: Iterable[KeyEntry] = (),
) -> KeyRing:
    """Creates a folder of keys.

    Args:
        folder: The folder; may exist if it holds no keys.
        passphrase: Encrypts the private keys; None for no encryption.
        ask: Asks for the passphrase when a key is used.
        expiry: Lifetime of signatures.
        bins: Number of hash bins of the index, a power of two: about one per 100 models.
        signers: Entries of roles whose private key is not stored in this folder.

    Raises:
        KeysExistError: The folder holds keys, which another process may have made at this moment.
        TrustError: The folder holds other files or is inside a repository, or ``bins`` is not a
            power of two.
    """
    _check_outside(folder)
    if bins < 2 or bins & (bins - 1) or bins > 2**14:
        raise TrustError(f"the number of bins must be a power of two from 2 to 16384, not {bins}")
    elsewhere = {entry.role: entry for entry in signers}
    _check_unused(folder)  # before anything is written there
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with _turn(folder):
        _check_unused(folder)
        keys = tuple(elsewhere.get(role) or _new_key(folder, role, passphrase) for role in ROLES)
        text = KeyFile(keys=keys, expiry=expiry, bins=bins).model_dump_json(indent=1)
        first = new_builder(folder / BUILDER, "first", passphrase)
        write_private(folder / _BUILDERS, BUILDERS.dump_json((first,), indent=1))
        # The file that makes them keys comes last, and once: also on a disk without locks.
        if not create_private(folder / "keys.json", text.encode()):
            for entry in keys:
                if entry.role not in elsewhere:
                    (folder / entry.uri.removeprefix("file:")).unlink(missing_ok=True)
            raise _used(folder)
    return KeyRing(folder, ask)


def _check_outside(folder: Path) -> None:
    """Checks that a folder of keys is not inside a repository.

    Raises:
        TrustError: It is.
    """
    for above in (folder.absolute(), *folder.absolute().parents):
        if (above / WITNESS).is_file():
            raise TrustError(
                f"{folder} is in the repository {above}, which everyone can read",
                hint="use --keys with a folder outside it",
            )


def _check_unused(folder: Path) -> None:
    """Checks that a folder may get keys.

    Raises:
        TrustError: It holds keys or other files.
    """
    if (folder / "keys.json").exists():
        raise _used(folder)
    if folder.is_dir() and any(
        path.suffix not in (".pem", ".part") and path.name not in (LOCK, _BUILDERS)
        for path in folder.iterdir()
    ):
        raise TrustError(
            f"{folder} holds other files",
            hint="keys need their own folder: name another with --keys",
        )


def _used(folder: Path) -> KeysExistError:
    return KeysExistError(
        f"{folder}: this folder already holds keys",
        hint="replace one with zoo-farm keys rotate, or use another folder with --keys",
    )


class KeysExistError(TrustError):
    """A folder that should get keys already holds some."""


def new_key(folder: Path, role: Role, passphrase: str | None) -> KeyEntry:
    """Generates an Ed25519 key in ``<role>.pem``, or ``<role>-2.pem`` … if that exists.

    Args:
        folder: Folder of the file.
        role: Role that it will sign.
        passphrase: Encrypts it; None for no encryption.
    """
    with _turn(folder):
        return _new_key(folder, role, passphrase)


def _new_key(folder: Path, role: Role, passphrase: str | None) -> KeyEntry:
    private, pem = _generated(passphrase)
    names = (f"{role}.pem" if n == 1 else f"{role}-{n}.pem" for n in range(1, 1000))
    name = next(name for name in names if create_private(folder / name, pem))
    return key_entry(role, f"file:{name}", SSlibKey.from_crypto(private.public_key()))


def _generated(passphrase: str | None) -> tuple[Ed25519PrivateKey, bytes]:
    """Returns a new private key, and the file of it."""
    private = Ed25519PrivateKey.generate()
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase:
        encryption = BestAvailableEncryption(passphrase.encode())
    return private, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def new_builder(
    path: Path, name: str, passphrase: str | None, ask: AskPassphrase | None = None
) -> Builder:
    """Generates a builder's key unless the file exists; returns what to register of it.

    Args:
        path: The file.
        name: What people call the builder.
        passphrase: Encrypts a new key; None for no encryption.
        ask: Asks for the passphrase of a key that exists; by default it is the same.

    Raises:
        TrustError: The file exists and is not a private key, or needs another passphrase.
    """
    if not path.exists():
        create_private(path, _generated(passphrase)[1])
    key = load_builder(path, ask or (lambda what: passphrase or "")).public_key
    return Builder(name=name, keyid=key.keyid, public=PublicKey.model_validate(key.to_dict()))


def load_builder(path: Path, ask: AskPassphrase) -> CryptoSigner:
    """Returns the signer of a builder's key.

    Args:
        path: The file.
        ask: Asks for a passphrase if the key is encrypted and the environment has none.

    Raises:
        TrustError: It is missing, is not such a key, or needs another passphrase.
    """
    try:
        data = read_regular(path, _LARGEST)
        encrypted = b"ENCRYPTED" in data
        secret = (os.environ.get(PASSPHRASE) or ask(f"passphrase of {path}")) if encrypted else ""
        private = load_pem_private_key(data, secret.encode() or None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("it is not of type ed25519")
        key = SSlibKey.from_crypto(private.public_key())
        return CryptoSigner(private, key)
    except _UNUSABLE as error:
        raise TrustError(
            f"the builder's key {path} can't be used: {error}",
            hint=f"if it is encrypted, set {PASSPHRASE}; zoo-farm builders key creates one",
        ) from error


def write_public(private: Path, public: Path, ask: AskPassphrase) -> None:
    """Writes the public key of a builder's private key, as PEM.

    Args:
        private: The private key.
        public: The file to write.
        ask: Asks for a passphrase if the key is encrypted.

    Raises:
        TrustError: The private key can't be used.
    """
    key = load_builder(private, ask).public_key.keyval["public"]
    public.write_bytes(
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
    )


def builder_elsewhere(name: str, public: Path) -> Builder:
    """Returns a builder whose private key is on another machine.

    Args:
        name: What people call it.
        public: PEM file of its public key.

    Raises:
        TrustError: The file contains no public key, or one of another type.
    """
    key = _public_key(public)
    if key.keytype != "ed25519":
        raise TrustError(
            f"{public}: a key of type {key.keytype}; a builder's is of type ed25519",
            hint="zoo-farm builders key, on the builder's machine, creates one",
        )
    return Builder(name=name, keyid=key.keyid, public=PublicKey.model_validate(key.to_dict()))


def _public_key(path: Path) -> SSlibKey:
    try:
        return SSlibKey.from_crypto(load_pem_public_key(read_regular(path, _LARGEST)))
    except _UNUSABLE as error:
        raise TrustError(f"{path}: not a public key in PEM format: {error}") from error


def key_elsewhere(role: str, uri: str, public: Path) -> KeyEntry:
    """Returns the entry of a key whose private key is not stored in the folder.

    Args:
        role: Role that it signs.
        uri: A securesystemslib signer: ``awskms:…``, ``gcpkms:…``, ``hsm:…``, ``file2:…``.
        public: PEM file of its public key.

    Raises:
        TrustError: The role or the URI's scheme is unknown, or the file contains no public key.
    """
    from securesystemslib.signer import SIGNER_FOR_URI_SCHEME

    known = next((known for known in ROLES if known == role), None)
    if known is None:
        raise TrustError(f"unknown role '{role}'", hint=f"roles are {', '.join(ROLES)}")
    if (scheme := urlparse(uri).scheme) not in SIGNER_FOR_URI_SCHEME:
        raise TrustError(
            f"{uri}: there is no signer for '{scheme}:'",
            hint=f"schemes are {', '.join(sorted(SIGNER_FOR_URI_SCHEME))}",
        )
    return key_entry(known, uri, _public_key(public))


def key_entry(role: Role, uri: str, key: Key) -> KeyEntry:
    """Returns the entry of a key."""
    return KeyEntry(
        role=role, uri=uri, keyid=key.keyid, public=PublicKey.model_validate(key.to_dict())
    )
