"""Verification of signed indexes with TUF, The Update Framework (https://theupdateframework.io).

Users trust a repository once, through its root: a file from its maintainers, or the file's SHA-256.
From then on :class:`SignedIndex` returns only files signed by the root's keys. It refuses rollbacks
to older versions, expired metadata, and files whose length or digest differs. Verified files are
cached and remain readable offline.

python-tuf implements the protocol; this module stores roots and metadata and explains errors.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.client.trust_folders import TrustFolders, is_intact
from zoo.schema.layout import FIRST_ROOT, hashed_key
from zoo.stores import ObjectStore
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError, SetbackError, TrustError
from zoo.util.files import write_whole
from zoo.util.locks import is_not_mine, turn

if TYPE_CHECKING:
    from tuf.ngclient import Updater

_ROOT_LIMIT = 512_000
_HOW_TO_TRUST = (
    "get root.json or its SHA-256 from the maintainers, not from the repository itself, then run "
    "once: zoo list --store STORE --trust ROOT"
)


@dataclass(frozen=True, kw_only=True)
class TrustHome:
    """A user's trusted roots and verified files.

    Attributes:
        roots: Folder of trusted roots, one file per repository.
        verified: Folder of verified files, one folder per repository.
    """

    roots: Path
    verified: Path

    def root(self, url: str) -> bytes | None:
        """Returns the trusted root of a repository, or None if it is not trusted."""
        path = self._root_path(url)
        return path.read_bytes() if path.is_file() else None

    def trust(self, url: str, root: bytes) -> bool:
        """Trusts a root for a repository and deletes files verified with a different root.

        Returns:
            Whether the root changed.
        """
        if self.root(url) == root:
            return False
        path, folder = self._root_path(url), self.folder(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        with turn(folder / "lock"):
            if self.root(url) == root:  # another process trusted it meanwhile
                return False
            for inside in ("metadata", "verified"):
                shutil.rmtree(folder / inside, ignore_errors=True)
            write_whole(path, root)
        return True

    def folder(self, url: str) -> Path:
        """Returns the folder of a repository's verified files."""
        return self.verified / _name(url)

    def _root_path(self, url: str) -> Path:
        return self.roots / f"{_name(url)}.root.json"


def _name(url: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url).strip("-")[-40:]
    return f"{readable}-{sha256_bytes(url.encode())[:12]}"


def read_root(store: ObjectStore, given: str) -> bytes:
    """Reads the root that a user asked to trust.

    Args:
        store: The repository's store.
        given: Path of a ``root.json``, or the SHA-256 of the repository's first root.

    Raises:
        TrustError: The file does not exist or is not a root, or the repository's root has another
            digest.
    """
    digest = given.removeprefix("sha256:").lower()
    if re.fullmatch("[0-9a-f]{64}", digest):
        try:
            data = store.get(FIRST_ROOT, limit=_ROOT_LIMIT)
        except KeyError as error:
            raise TrustError(f"{store.url}: not signed: {FIRST_ROOT} is missing") from error
        if (actual := sha256_bytes(data)) != digest:
            raise TrustError(
                f"{store.url}: the SHA-256 of its root is {actual}, not the given {digest}",
                hint="the repository was not trusted; ask its maintainers for the right SHA-256",
            )
        return data
    path = Path(given)
    try:
        data = path.read_bytes()
        if json.loads(data)["signed"]["_type"] != "root":
            raise ValueError
    except OSError as error:
        raise TrustError(f"{path}: {error.strerror}", hint=_HOW_TO_TRUST) from error
    except (ValueError, KeyError, TypeError) as error:
        raise TrustError(f"{path}: not a TUF root", hint=_HOW_TO_TRUST) from error
    return data


def trusted_root(store: ObjectStore, home: TrustHome, given: str | None) -> bytes:
    """Returns a repository's trusted root, storing it first if the user gave one.

    Raises:
        TrustError: No root was given, and the repository is not trusted yet.
    """
    if given:
        root = read_root(store, given)
        try:
            home.trust(store.url, root)
        except OSError as error:
            if not is_not_mine(error):
                raise  # otherwise it is trusted this time, and not remembered
        return root
    known = home.root(store.url)
    if known is None:
        own = Path(f"{store.url}.keys") / "root.json"
        raise TrustError(
            f"{store.url}: this repository is not trusted yet",
            hint=f"if it is your own: zoo list --store {shlex.quote(store.url)} --trust "
            f"{shlex.quote(str(own))}"
            if own.is_file()
            else _HOW_TO_TRUST.replace("STORE", shlex.quote(store.url)),
        )
    return known


class SignedIndex:
    """Reads and verifies the index of a repository.

    Each process reads into a folder of its own, and adds what it verified to the shared folder:
    the shared folder is locked for that moment alone, not while a server is waited for.

    Args:
        store: The repository's store.
        folder: Folder in which metadata and verified files are cached.
        root: Trusted root metadata.
        allow_stale: Accept expired metadata, even though newer versions may be withheld.
        say: Called with messages for the user.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        root: bytes,
        *,
        allow_stale: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._store = store
        self._folders = TrustFolders(folder)
        self._root = root
        self._allow_stale = allow_stale
        self._say = say
        self._updater: Updater | None = None
        self.cause: TrustError | RepositoryError | None = None
        """Why only cached files are returned; None if the repository was read."""

    def read(self, path: str) -> bytes | None:
        """Returns a file of the index.

        Falls back to the last verified copy if the repository can't be reached or has expired.

        Args:
            path: ``index.json`` or ``index/<model>.json``.

        Returns:
            The file's content, or None if the repository has no such file.

        Raises:
            TrustError: The repository's signatures are not valid; says why.
            RepositoryError: The repository can't be reached, and no verified copy is cached.
        """
        if self.cause is None:
            try:
                return self._fresh(path)
            except SetbackError as error:
                self.cause = error.cause
        if (cached := self._folders.copy_of(path)) is None:
            raise self.cause
        if not is_intact(cached):
            raise RepositoryError(
                f"{self.cause.message}; the copy verified earlier, {cached}, is damaged and not "
                "used",
                hint="it will be replaced when the repository can be read again",
            ) from self.cause
        since = datetime.fromtimestamp(cached.stat().st_mtime, timezone.utc)
        self._say(f"{self.cause.message}; using the copy verified on {since:%Y-%m-%d}")
        return cached.read_bytes()

    def expires(self) -> datetime | None:
        """Returns when the index that was read expires, or None if none was read yet."""
        from tuf.api.metadata import Metadata, Timestamp

        path = self._folders.metadata / "timestamp.json"
        if not path.is_file():
            return None
        return Metadata[Timestamp].from_bytes(path.read_bytes()).signed.expires

    def signers(self) -> tuple[str, ...]:
        """Returns ids of the keys that signed the index; empty if none was read yet."""
        from tuf.api.metadata import Metadata, Root, Timestamp

        folder = self._folders.metadata
        if not (folder / "timestamp.json").is_file():
            return ()
        root = Metadata[Root].from_bytes((folder / "root.json").read_bytes())
        timestamp = Metadata[Timestamp].from_bytes((folder / "timestamp.json").read_bytes())
        trusted = root.signed.roles[Timestamp.type].keyids
        return tuple(keyid for keyid in timestamp.signatures if keyid in trusted)

    def look_again(self) -> None:
        """Makes the next read check the repository for newly published files."""
        self._updater = self.cause = None

    def must_be_fresh(self) -> None:
        """Raises if only cached files can be read.

        Raises:
            TrustError: The repository's index has expired.
            RepositoryError: The repository can't be reached.
        """
        if self.cause is not None:
            raise self.cause

    def metadata(self) -> Iterator[tuple[str, bytes]]:
        """Yields key and content of all metadata of the index that was read, hashed bins included.

        Raises:
            TrustError: Metadata files do not match each other.
            RepositoryError: Metadata can't be read.
        """
        from zoo.client.tuf import metadata_files, translate_errors

        try:
            with translate_errors(self._store.url):
                yield from metadata_files(self._store, self._folders.metadata)
        except SetbackError as error:
            raise error.cause from error

    def _fresh(self, path: str) -> bytes | None:
        from zoo.client.tuf import translate_errors, updater

        with translate_errors(self._store.url):
            if self._updater is None:
                self._folders.start()
                self._updater = updater(
                    self._store, self._folders.metadata, self._root, allow_expired=self._allow_stale
                )
            info = self._updater.get_targetinfo(path)
        self._folders.share()
        if info is None:
            return None
        if (digest := info.hashes.get("sha256")) is None:
            raise TrustError(
                f"{self._store.url}: {path} is signed without a SHA-256: with "
                f"{', '.join(sorted(info.hashes)) or 'no digest'} alone",
                hint="files of a repository are stored by their SHA-256; report it to the "
                "repository's maintainers",
            )
        if (copy := self._folders.read_copy(path, digest)) is not None:
            return copy
        key = hashed_key(path, digest)
        try:
            data = self._store.get(key, limit=info.length)
        except KeyError as error:
            raise RepositoryError(
                f"{self._store.url}: {key} is signed but missing",
                hint="a mirror may have left it out; otherwise report it to the maintainers",
            ) from error
        if len(data) != info.length or sha256_bytes(data) != digest:
            raise TrustError(
                f"{self._store.url}: {key} does not match its signature: modified or truncated",
                hint="it was not used; report it to the repository's maintainers",
            )
        self._folders.keep_copy(path, data, digest)
        return data
