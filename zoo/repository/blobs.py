"""Blobs: files stored under their SHA-256."""

from __future__ import annotations

from pathlib import Path

from zoo.repository.chunked import ChunkedBlobs
from zoo.schema.chunks import Pieces
from zoo.schema.layout import blob_key, pieces_key
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
    """The blobs of a repository, each stored whole or as chunks.

    Args:
        store: The repository's store.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._chunks = ChunkedBlobs(store)

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
        """Deletes a blob, or a folder that stands in its place in a local store.

        Chunks stay: other blobs may have them too.
        """
        key = blob_key(blob.sha256)
        if (path := self._store.local_path(key)) is not None:
            make_way(path)
        self._store.delete(key)
        self._store.delete(pieces_key(blob.sha256))

    def seems_whole(self, blob: Blob) -> bool:
        """Whether a stored blob's size is right, and its hash if the store is local.

        Of one that is stored as chunks, the sizes of list and packs.
        """
        path = self.path(blob)
        return self.has(blob) and (path is None or sha256_file(path) == blob.sha256)

    def has(self, blob: Blob) -> bool:
        """Whether the blob is stored with its full size, whole or as chunks."""
        size = self._store.size(blob_key(blob.sha256))
        return size == blob.size if size is not None else self.pieces(blob) is not None

    def is_whole(self, blob: Blob) -> bool:
        """Whether the blob is stored whole with its full size."""
        return self._store.size(blob_key(blob.sha256)) == blob.size

    def pieces(self, blob: Blob) -> Pieces | None:
        """Returns what a blob is assembled from; None if that is not all stored."""
        pieces = self._chunks.pieces.read(blob.sha256)
        if pieces is None or pieces.whole.size != blob.size:
            return None
        return pieces if all(map(self.is_whole, pieces.blobs)) else None

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
        if size is not None:
            return Blob(sha256=sha256, size=size)
        pieces = self._chunks.pieces.read(sha256)
        return pieces.whole if pieces is not None and self.pieces(pieces.whole) else None

    def path(self, blob: Blob) -> Path | None:
        """Returns the path of a blob in a local store.

        Returns:
            None if the store is remote, or if the blob is stored as chunks only.
        """
        path = self._store.local_path(blob_key(blob.sha256))
        if path is not None and not path.exists() and self.pieces(blob) is not None:
            return None
        return path

    def fetch(
        self,
        blob: Blob,
        path: Path,
        *,
        partial: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Downloads a blob to ``path``, or makes it from its chunks, and checks its hash.

        The download goes to ``partial``, by default ``<path>.part``, and is renamed only if the
        hash matches. A partial download left by an interruption is resumed.

        Raises:
            MissingPackageError: The blob is stored as chunks only, and zstd is not installed.
            RepositoryError: The blob is missing or damaged.
        """
        partial = partial or path.with_name(path.name + ".part")
        resumed = partial.exists()
        try:
            self._store.fetch(blob_key(blob.sha256), partial, size=blob.size, progress=progress)
        except KeyError as error:
            return self._assemble(blob, path, partial, progress, error)
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

    def _assemble(
        self, blob: Blob, path: Path, partial: Path, progress: Progress | None, error: KeyError
    ) -> None:
        try:
            if (pieces := self.pieces(blob)) is not None:
                return self._chunks.assemble(pieces, path, partial=partial, progress=progress)
        except KeyError:  # removed meanwhile
            pass
        raise missing(self._store.url, blob) from error

    def whole(self, blob: Blob, scratch: Path) -> Path:
        """Returns a path to a blob whose hash was checked, for whoever builds or verifies engines.

        Args:
            blob: The blob.
            scratch: Directory to make it in if it is not stored as a local file.

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

    def damage(self, blob: Blob, scratch: Path, pieces: Pieces | None = None) -> str | None:
        """Describes what is wrong with a blob; None if its hash matches.

        Args:
            blob: The blob.
            scratch: Directory to make it in if it is not stored as a local file.
            pieces: What a signed index says that it is assembled from, if it is not stored whole.
        """
        size = self._store.size(blob_key(blob.sha256))
        if size is None:
            return damage_of_chunks(self._store, blob, scratch, pieces)
        path = self._store.local_path(blob_key(blob.sha256))
        if size != blob.size:
            return f"damaged: it has {size:,} bytes instead of {blob.size:,}"
        if path is None:
            path = scratch / blob.sha256
            self._store.fetch(blob_key(blob.sha256), path, size=blob.size)
        return None if sha256_file(path) == blob.sha256 else "damaged"


def damage_of_chunks(
    store: ObjectStore, blob: Blob, scratch: Path, pieces: Pieces | None = None
) -> str | None:
    """Describes what is wrong with the chunks of a blob; None if they make up the blob.

    Args:
        store: The repository's store.
        blob: The blob.
        scratch: Directory to make it in.
        pieces: What it is assembled from, if a signed index says so.

    Raises:
        MissingPackageError: zstd is not installed.
    """
    path, chunks = scratch / blob.sha256, ChunkedBlobs(store)
    try:
        pieces = pieces or chunks.pieces.read(blob.sha256)
        if pieces is None:
            return "missing"
        for part in pieces.blobs:
            size = store.size(blob_key(part.sha256))
            if size is None or size < part.size:
                found = "missing" if size is None else f"cut short to {size:,} bytes"
                return f"missing, because blob {part.sha256} of its chunks is {found}"
        chunks.assemble(pieces, path, partial=path.with_name(f"{path.name}.part"))
    except KeyError:
        return "missing, because a blob of its chunks was removed meanwhile"
    except RepositoryError as error:
        return f"damaged: {error.message}"
    return None


def missing(url: str, blob: Blob) -> RepositoryError:
    """Returns the error for a blob that readers need and a repository does not have."""
    return RepositoryError(
        f"{url}: blob {blob.sha256} is missing",
        hint="if this is a mirror, it may have been made without this blob: try the "
        "original repository; otherwise tell the repository's maintainer",
    )
