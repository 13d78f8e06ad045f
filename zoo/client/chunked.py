"""Downloads of engines as chunks, of which this machine may have some."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from zoo.client.engine_cache import engines_of, kept
from zoo.client.engine_files import not_writable
from zoo.client.partials import own_partial
from zoo.repository.assembly import Place
from zoo.repository.blobs import missing
from zoo.repository.chunked import Transfer, cost, places_in, unpacked
from zoo.repository.repository import Repository
from zoo.schema.chunks import ChunkList
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.stores import Progress
from zoo.util import zstd
from zoo.util.cuts import can_cut, cut
from zoo.util.digest import sha256_bytes
from zoo.util.errors import NoRangesError, RepositoryError
from zoo.util.files import write_whole

WORTH = 0.8
"""Share of an engine's size up to which chunks are fetched instead of the whole.

Putting them together may take more of a processor than reading the whole, and takes a list.
"""

_HINT = "nothing was loaded; tell the repository's maintainer"


class Counter:
    """Counts the bytes of a download, and reports them.

    Args:
        progress: Called with them too.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._bytes = 0

    def __call__(self, count: int) -> None:
        """Counts bytes."""
        self._bytes += count
        if self._progress is not None:
            self._progress(count)

    def transfer(self, size: int) -> Transfer:
        """Returns what the download of a file of this size cost."""
        return Transfer(fetched=self._bytes, reused=max(0, size - self._bytes))


class ChunkedDownloads:
    """Downloads engines of a repository as chunks.

    Args:
        repository: The repository.
        cache: The cache's folder.
    """

    def __init__(self, repository: Repository, cache: Path) -> None:
        self._chunks = repository.chunks
        self._blobs = repository.blobs
        self._url = repository.store.url
        self._cache = cache

    def fetch(
        self,
        model: str,
        read_index: Callable[[], ModelIndex],
        entry: EngineEntry,
        path: Path,
        progress: Progress | None,
        seeds: Sequence[Path],
    ) -> Transfer | None:
        """Downloads the chunks of an engine that this machine lacks.

        Args:
            model: Id of its model.
            read_index: Returns the index of its model.
            entry: The engine.
            path: The file to make.
            progress: Called with the bytes that were written.
            seeds: Files that may have some of its chunks, beside the model's cached engines.

        Returns:
            What it cost. None if nothing was downloaded, because it would be no less than the
            whole, or because chunks can't be had here; then the whole must be downloaded.

        Raises:
            RepositoryError: A chunk is damaged, or the cache may not be written; or the engine is
                stored as chunks only, and some are missing.
            MissingPackageError: Seeds were given, and pyfastcdc is not installed; or the engine is
                stored as chunks only, and zstd is not installed.
        """
        try:
            return self._fetch(model, read_index, entry, path, progress, seeds)
        except RepositoryError as error:
            if not entry.chunks_only:
                raise
            if self._blobs.is_whole(entry.engine):  # zoo-farm gc has not collected it yet
                return None
            raise RepositoryError(error.message, hint=_HINT) from error

    def _fetch(
        self,
        model: str,
        read_index: Callable[[], ModelIndex],
        entry: EngineEntry,
        path: Path,
        progress: Progress | None,
        seeds: Sequence[Path],
    ) -> Transfer | None:
        if entry.chunks is None:
            return None
        if not zstd.is_installed():
            if entry.chunks_only and not self._blobs.is_whole(entry.engine):
                self._chunks.must_read()
            return None
        places = dict[str, Place]()
        for seed in seeds:
            places |= cut_places(seed)
        try:
            data = self._chunks.read(entry.chunks)
        except KeyError as error:
            if entry.chunks_only:
                raise missing(self._url, entry.chunks) from error
            return None  # a mirror that an earlier version made has none
        chunks = self._chunks.parse(data, entry.engine)
        self._keep(entry.engine.sha256, data)
        for seed, listed in self._cached(model, read_index, entry):
            places |= cut_places(seed) if listed is None else places_in(listed, seed)
        if not (entry.chunks_only or _pays(len(data) + cost(chunks, places), entry)):
            return None
        made = self._assemble(chunks, path, places, progress, only=entry.chunks_only)
        if made is None:
            return None
        return Transfer(fetched=made.fetched + len(data), reused=made.reused)

    def _assemble(
        self,
        chunks: ChunkList,
        path: Path,
        places: dict[str, Place],
        progress: Progress | None,
        *,
        only: bool,
    ) -> Transfer | None:
        """Makes an engine; returns None if it is to be downloaded whole instead."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with own_partial(path.with_name(f"chunks-{path.name}")) as partial:
                try:
                    return self._chunks.fetch(
                        chunks, path, partial=partial, places=places, progress=progress,
                        whole_packs=path.parent if only else None,
                    )  # fmt: skip
                except (KeyError, NoRangesError) as error:
                    if only:
                        raise missing(self._url, chunks.whole) from error
                    partial.unlink(missing_ok=True)
                    return None
        except OSError as error:
            raise not_writable(path, error) from error

    def _cached(
        self, model: str, read_index: Callable[[], ModelIndex], wanted: EngineEntry
    ) -> Iterator[tuple[Path, ChunkList | None]]:
        """Yields the cached engines of a model, each with its list of chunks if there is one."""
        others = {file.path.name: file.path for file in kept(self._cache) if file.whole}
        others.pop(wanted.engine.sha256, None)
        if not others:  # then no record need be read
            return
        for sha256 in engines_of(self._cache, model):
            if (path := others.get(sha256)) is None:
                continue
            listed = self._kept(sha256)
            if listed is None:
                named = (entry for entry in read_index().engines if entry.engine.sha256 == sha256)
                listed = next((self._listed(entry) for entry in named), None)
            if listed is not None or can_cut():
                yield path, listed

    def _listed(self, entry: EngineEntry) -> ChunkList | None:
        """Returns the list of a cached engine from the repository; None if it can't be had."""
        if entry.chunks is None:
            return None
        with suppress(KeyError, RepositoryError):
            data = self._chunks.read(entry.chunks)
            chunks = self._chunks.parse(data, entry.engine)
            self._keep(entry.engine.sha256, data)
            return chunks
        return None

    def _kept(self, sha256: str) -> ChunkList | None:
        """Returns the list of an engine from the cache, None if there is none."""
        try:
            return unpacked((self._cache / "chunks" / sha256).read_bytes())
        except (OSError, ValueError):
            return None

    def _keep(self, sha256: str, data: bytes) -> None:
        with suppress(OSError):  # it is only saved requests
            write_whole(self._cache / "chunks" / sha256, data)


def _pays(fetched: int, entry: EngineEntry) -> bool:
    return fetched <= WORTH * entry.engine.size


def cut_places(path: Path) -> dict[str, Place]:
    """Cuts a file into chunks; returns where each is.

    Raises:
        MissingPackageError: pyfastcdc is not installed.
    """
    return {sha256_bytes(data): Place(path, offset) for offset, data in cut(path)}
