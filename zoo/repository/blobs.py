"""Blobs: files stored under their SHA-256."""

from __future__ import annotations

from pathlib import Path

from zoo.schema.layout import blob_key
from zoo.schema.records import Blob
from zoo.stores.base import ObjectStore, Progress
from zoo.util.digest import sha256_file
from zoo.util.errors import RepositoryError, TooLongError
from zoo.util.files import make_way

REPAIR = (
    "zoo-farm check --repair removes damaged files and the records that name them, and the next "
    "make zoo makes them again"
)
"""What a repository's maintainer does about a missing or damaged blob."""


class Blobs:
    """The blobs of a repository.

    Args:
        store: The repository's store.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def add(self, path: Path) -> Blob:
        """Stores a file as a blob. The store may move the file instead of copying it.

        A stored blob of this hash that is damaged is replaced.

        Returns:
            The blob's hash and size.
        """
        blob = Blob(sha256=sha256_file(path), size=path.stat().st_size)
        key = blob_key(blob.sha256)
        if not self._store.put_file(key, path) and not self.seems_whole(blob):
            self.discard(blob)
            self._store.put_file(key, path)
        return blob

    def discard(self, blob: Blob) -> None:
        """Deletes a blob, or a folder that stands in its place in a local store."""
        if (path := self.path(blob)) is not None:
            make_way(path)
        self._store.delete(blob_key(blob.sha256))

    def seems_whole(self, blob: Blob) -> bool:
        """Whether a stored blob's size is right, and its hash if the store is local."""
        path = self.path(blob)
        return self.has(blob) and (path is None or sha256_file(path) == blob.sha256)

    def has(self, blob: Blob) -> bool:
        """Whether the blob is stored with its full size."""
        return self._store.size(blob_key(blob.sha256)) == blob.size

    def require(self, blob: Blob, owner: str) -> None:
        """Checks that a blob is stored before a record names it.

        Args:
            blob: The blob.
            owner: The record, as error messages call it.

        Raises:
            RepositoryError: It is not stored.
        """
        if not self.has(blob):
            raise RepositoryError(
                f"{self._store.url}: {owner} names blob {blob.sha256}, which is not stored",
                hint="store the blob before the record that names it",
            )

    def find(self, sha256: str) -> Blob | None:
        """Returns the blob with this digest, its size taken from the store; None if absent."""
        size = self._store.size(blob_key(sha256))
        return None if size is None else Blob(sha256=sha256, size=size)

    def path(self, blob: Blob) -> Path | None:
        """Returns the path of a blob in a local store, None if the store is remote."""
        return self._store.local_path(blob_key(blob.sha256))

    def fetch(
        self,
        blob: Blob,
        path: Path,
        *,
        partial: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Downloads a blob to ``path`` and checks its hash.

        The download goes to ``partial``, by default ``<path>.part``, and is renamed only if the
        hash matches. A partial download left by an interruption is resumed.

        Raises:
            RepositoryError: The blob is missing or damaged.
        """
        partial = partial or path.with_name(path.name + ".part")
        resumed = partial.exists()
        try:
            self._store.fetch(blob_key(blob.sha256), partial, size=blob.size, progress=progress)
        except KeyError as error:
            raise RepositoryError(
                f"{self._store.url}: blob {blob.sha256} is missing",
                hint="if this is a mirror, it may have been made without this blob: try the "
                "original repository; otherwise tell the repository's maintainer",
            ) from error
        except TooLongError:
            partial.unlink(missing_ok=True)
            raise
        if partial.stat().st_size == blob.size and sha256_file(partial) == blob.sha256:
            partial.replace(path)
            return None
        partial.unlink()
        if resumed:  # the damage may be in the part downloaded earlier
            return self.fetch(blob, path, partial=partial, progress=progress)
        raise RepositoryError(
            f"{self._store.url}: blob {blob.sha256} is damaged: its SHA-256 does not match",
            hint="the download was discarded; tell the repository's maintainer",
        )

    def whole(self, blob: Blob, scratch: Path) -> Path:
        """Returns a path to a blob whose hash was checked, for whoever builds or verifies engines.

        Args:
            blob: The blob.
            scratch: Directory to download it to if the store is remote.

        Raises:
            RepositoryError: It is missing or damaged.
        """
        path = self.path(blob)
        if path is None:
            try:
                self.fetch(blob, path := scratch / blob.sha256)
            except RepositoryError as error:  # its hint is for readers
                raise RepositoryError(
                    error.message, hint=f"nothing was loaded; {REPAIR}"
                ) from error
        elif damage := self.damage(blob, scratch):
            raise RepositoryError(
                f"{self._store.url}: blob {blob.sha256} is {damage}",
                hint=f"nothing was loaded; {REPAIR}",
            )
        return path

    def damage(self, blob: Blob, scratch: Path) -> str | None:
        """Describes what is wrong with a blob; None if its hash matches.

        Args:
            blob: The blob.
            scratch: Directory to download it to if the store is remote.
        """
        path = self.path(blob)
        size = self._store.size(blob_key(blob.sha256))
        if size is None:
            return "missing"
        if size != blob.size:
            return f"damaged: it has {size:,} bytes instead of {blob.size:,}"
        if path is None:
            path = scratch / blob.sha256
            self._store.fetch(blob_key(blob.sha256), path, size=blob.size)
        return None if sha256_file(path) == blob.sha256 else "damaged"
