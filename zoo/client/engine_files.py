"""The engine files of the local cache: checked, and downloaded once if several processes ask."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.client.partials import own_partial
from zoo.repository.blobs import Blobs
from zoo.schema.records import Blob
from zoo.stores import Progress
from zoo.util.digest import sha256_file
from zoo.util.errors import RepositoryError
from zoo.util.files import make_way
from zoo.util.locks import turn


class EngineFiles:
    """Files of a repository's engines, by digest.

    Args:
        blobs: The repository's blobs.
        cache: The cache's folder.
    """

    def __init__(self, blobs: Blobs, cache: Path) -> None:
        self._blobs = blobs
        self._cache = cache

    def get(
        self,
        blob: Blob,
        progress: Progress | None = None,
        *,
        before_download: Callable[[], None] = lambda: None,
        download: Callable[[Path], None] | None = None,
    ) -> Path:
        """Returns the path of an engine whose digest was checked, downloading it if necessary.

        Args:
            blob: The engine.
            progress: Called during the download.
            before_download: Called before it; raises if it must not begin.
            download: Makes the file, checked; by default it is fetched whole.

        Raises:
            RepositoryError: The blob is missing or damaged, or the cache may not be written.
        """
        engine = self._cache / "engines" / blob.sha256
        if not has(engine, blob.sha256):  # of a cache with everything, nothing is written
            with self._turn(blob.sha256):
                if not has(engine, blob.sha256):
                    before_download()
                    if download is None:
                        self.fetch(blob, engine, progress)
                    else:
                        download(engine)
        return engine

    @contextmanager
    def fetched(self, blob: Blob) -> Iterator[Path]:
        """Downloads a blob to a temporary file, which is deleted on exit.

        An interrupted download stays in the cache and is resumed next time.

        Raises:
            RepositoryError: The blob is missing, or its digest does not match.
        """
        path = self._cache / "engines" / f"{blob.sha256}.mirror"
        with self._turn(path.name):
            self.fetch(blob, path)
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)

    def fetch(self, blob: Blob, path: Path, progress: Progress | None = None) -> None:
        """Downloads a blob to a path, and checks it.

        Raises:
            RepositoryError: The blob is missing or damaged, or the folder may not be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            make_way(path)
            with own_partial(path) as partial:
                self._blobs.fetch(blob, path, partial=partial, progress=progress)
        except OSError as error:
            raise not_writable(path, error) from error

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        with turn(self._cache / "locks" / name):
            yield


def not_writable(path: Path, error: OSError) -> RepositoryError:
    """Returns the error for a file of the cache that can't be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return RepositoryError(
        f"can't write {path.parent}: {error.strerror}",
        hint="free some space, or set ZOO_HOME to a folder on another disk"
        if full
        else "set ZOO_HOME to a folder that you may write to",
    )


def has(path: Path, sha256: str) -> bool:
    """Whether a file is there and its bytes are what they should be."""
    return path.is_file() and sha256_file(path) == sha256
