"""Blobs: immutable bytes, named by their SHA-256."""

from __future__ import annotations

from pathlib import Path

from zoo.repository.record_files import RecordFiles
from zoo.schema.layout import blob_key
from zoo.schema.records import Blob
from zoo.stores import Progress
from zoo.util.digest import sha256_file
from zoo.util.errors import RepositoryError, TooLongError


class Blobs(RecordFiles):
    """Stores, fetches and verifies blobs."""

    def add_blob(self, path: Path) -> Blob:
        """Stores a file as a blob. The caller gives the file up.

        Returns:
            Its hash and size.
        """
        blob = Blob(sha256=sha256_file(path), size=path.stat().st_size)
        self.store.put_file(blob_key(blob.sha256), path)
        return blob

    def has_blob(self, blob: Blob) -> bool:
        """Whether the blob is here, whole."""
        return self.store.size(blob_key(blob.sha256)) == blob.size

    def find_blob(self, sha256: str) -> Blob | None:
        """Returns the blob of a digest with the size that the store gives, None without it."""
        size = self.store.size(blob_key(sha256))
        return None if size is None else Blob(sha256=sha256, size=size)

    def blob_path(self, blob: Blob) -> Path | None:
        """Returns where a blob can be read in place, None where the store is remote."""
        return self.store.local_path(blob_key(blob.sha256))

    def fetch_blob(self, blob: Blob, path: Path, *, progress: Progress | None = None) -> None:
        """Copies a blob to ``path`` and checks it; a blob that fails never gets that name.

        What an interruption leaves, ``<path>.part``, is gone on from.

        Raises:
            RepositoryError: The blob is missing, or its bytes are not what its name says.
        """
        partial = path.with_name(path.name + ".part")
        resumed = partial.exists()
        try:
            self.store.fetch(blob_key(blob.sha256), partial, size=blob.size, progress=progress)
        except KeyError as error:
            raise RepositoryError(
                f"{self.store.url}: blob {blob.sha256} is missing",
                hint="a mirror may have been made without it; else tell the maintainers",
            ) from error
        except TooLongError:
            partial.unlink(missing_ok=True)
            raise
        if partial.stat().st_size == blob.size and sha256_file(partial) == blob.sha256:
            partial.replace(path)
            return None
        partial.unlink()
        if resumed:  # what was there before may have been the damage
            return self.fetch_blob(blob, path, progress=progress)
        raise RepositoryError(
            f"{self.store.url}: blob {blob.sha256} is damaged: its bytes do not have that hash",
            hint="the download was discarded; tell the repository's maintainer",
        )

    def whole_blob(self, blob: Blob, scratch: Path) -> Path:
        """Returns a file with a blob's bytes, checked: in place, else a copy in ``scratch``.

        Raises:
            RepositoryError: It is missing or damaged.
        """
        path = self.blob_path(blob)
        if path is None:
            self.fetch_blob(blob, path := scratch / blob.sha256)
        elif damage := self.damage(blob, scratch):
            raise RepositoryError(f"{self.store.url}: blob {blob.sha256} is {damage}")
        return path

    def damage(self, blob: Blob, scratch: Path) -> str | None:
        """Says what is wrong with a blob, None when its bytes have its hash.

        Args:
            blob: Which one.
            scratch: Folder for a copy, where the store is remote.
        """
        path = self.blob_path(blob)
        size = self.store.size(blob_key(blob.sha256))
        if size is None:
            return "missing"
        if size != blob.size:
            return f"damaged: it has {size:,} bytes and not {blob.size:,}"
        if path is None:
            path = scratch / blob.sha256
            self.store.fetch(blob_key(blob.sha256), path, size=blob.size)
        return None if sha256_file(path) == blob.sha256 else "damaged"
