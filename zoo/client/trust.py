"""Verification of signed indexes with TUF, The Update Framework (https://theupdateframework.io).

Users trust a repository once, through its root (:mod:`zoo.client.roots`). From then on
:class:`SignedIndex` returns only files signed by the root's keys. It refuses rollbacks to older
versions, expired metadata, and files whose length or digest differs. Verified files are cached and
remain readable offline.

python-tuf implements the protocol; this module stores metadata and explains errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.client.trust_folders import TrustFolders, is_intact
from zoo.schema.layout import hashed_key
from zoo.stores import ObjectStore
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError, SetbackError, TrustError

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Timestamp
    from tuf.ngclient import Updater


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
        self._said: set[str] = set()
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
        text = f"{self.cause.message}; using the copy verified on {since:%Y-%m-%d}"
        if text not in self._said:  # once for the index and its models
            self._said.add(text)
            self._say(text)
        return cached.read_bytes()

    def expires(self) -> datetime | None:
        """Returns when the index that was read expires, or None if none was read yet."""
        timestamp = self._timestamp()
        return None if timestamp is None else timestamp.signed.expires

    def signers(self) -> tuple[str, ...]:
        """Returns ids of the keys that signed the index; empty if none was read yet."""
        from tuf.api.metadata import Metadata, Root, Timestamp
        from tuf.api.serialization import DeserializationError

        timestamp = self._timestamp()
        if timestamp is None:
            return ()
        try:
            data = (self._folders.metadata / "root.json").read_bytes()
            trusted = Metadata[Root].from_bytes(data).signed.roles[Timestamp.type].keyids
        except (OSError, DeserializationError):
            return ()
        return tuple(keyid for keyid in timestamp.signatures if keyid in trusted)

    def _timestamp(self) -> Metadata[Timestamp] | None:
        """Returns the timestamp that was read, None if there is none or its file is damaged."""
        from tuf.api.metadata import Metadata, Timestamp
        from tuf.api.serialization import DeserializationError

        try:
            data = (self._folders.metadata / "timestamp.json").read_bytes()
            return Metadata[Timestamp].from_bytes(data)
        except (OSError, DeserializationError):  # a copy from earlier may still be read
            return None

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
