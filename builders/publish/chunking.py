"""Stores engines also as chunks, so that readers fetch only those that they lack.

The chunks of a model's engines are stored once: an engine refers to those of the model's other
engines. The new chunks of a run are in one pack.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builders.publish.chunk_lists import naming
from zoo.repository.chunked import packed
from zoo.repository.repository import Repository
from zoo.schema.chunks import Chunk, ChunkList
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.records import Blob, Status
from zoo.util import zstd
from zoo.util.cuts import can_cut, cut
from zoo.util.digest import sha256_bytes
from zoo.util.errors import MissingPackageError, RepositoryError

_LEVEL = 3
"""Of zstd: higher ones take several times as long for a few percent."""


@dataclass(frozen=True)
class _Stored:
    """Where a chunk is stored.

    Attributes:
        pack: The pack; None for the one that is being written.
        offset: Where it begins there.
        stored: Its length there.
        size: Its size.
    """

    pack: Blob | None
    offset: int
    stored: int
    size: int


class _Pack:
    """Writes a pack, and knows the chunks of a model's other packs.

    Args:
        path: The file to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.chunks: dict[str, _Stored] = {}
        self._file = path.open("wb")

    def know(self, chunks: ChunkList) -> None:
        """Learns where the chunks of a stored engine are."""
        for chunk in chunks.chunks:
            stored = _Stored(chunks.packs[chunk.pack], chunk.offset, chunk.stored, chunk.size)
            self.chunks.setdefault(chunk.sha256, stored)

    def add(self, data: bytes) -> str:
        """Stores a chunk unless it is known; returns its digest."""
        digest = sha256_bytes(data)
        if digest not in self.chunks:
            frame = zstd.compress(data, _LEVEL)
            self.chunks[digest] = _Stored(None, self._file.tell(), len(frame), len(data))
            self._file.write(frame)
        return digest

    def close(self) -> None:
        """Completes the file."""
        self._file.close()


def with_chunks(repository: Repository, index: ModelIndex) -> ModelIndex:
    """Stores the engines of a model as chunks, and returns its index with their lists.

    Withdrawn engines, which nobody downloads, have none, nor have engines that are missing or
    damaged. A list that is missing or damaged, or whose packs are, is made again.

    Raises:
        MissingPackageError: The extra ``chunks`` is not installed.
    """
    offered = [entry for entry in index.engines if entry.status != Status.WITHDRAWN]
    with tempfile.TemporaryDirectory() as scratch, _pack(Path(scratch) / "pack") as pack:
        lists: dict[str, Blob] = {}
        for entry in offered:
            if (known := _listed(repository, entry)) is not None:
                pack.know(known[1])
                lists[entry.engine.sha256] = known[0]
        new = {entry.engine.sha256: entry.engine for entry in offered}
        orders = {
            sha256: order
            for sha256, engine in new.items()
            if sha256 not in lists
            and (order := _cut(repository, pack, engine, Path(scratch))) is not None
        }
        pack.close()
        written = repository.blobs.add(pack.path) if pack.path.stat().st_size else None
        for sha256, order in orders.items():
            path = Path(scratch) / "list"
            path.write_bytes(packed(_list(new[sha256], pack.chunks, written, order)))
            lists[sha256] = repository.blobs.add(path)
    return naming(index, lists)


def must_be_able(repository: Repository) -> None:
    """Checks that engines can be stored as chunks here.

    Raises:
        MissingPackageError: The extra ``chunks`` is not installed.
    """
    if not (can_cut() and zstd.is_installed()):
        raise MissingPackageError(
            f"{repository.store.url} stores engines as chunks, for which pyfastcdc and zstd are "
            "not installed",
            hint=f"{zstd.INSTALL}, or turn it off: zoo-farm chunks off",
        )


@contextmanager
def _pack(path: Path) -> Iterator[_Pack]:
    pack = _Pack(path)
    try:
        yield pack
    finally:
        pack.close()


def _listed(repository: Repository, entry: EngineEntry) -> tuple[Blob, ChunkList] | None:
    """Returns the list of an engine; None if there is none, or what it needs is not whole."""
    if entry.chunks is None:
        return None
    try:
        chunks = repository.chunks.list_of(entry.engine, entry.chunks)
    except (KeyError, RepositoryError):
        return None
    if not all(repository.blobs.seems_whole(pack) for pack in chunks.packs):
        return None
    return entry.chunks, chunks


def _cut(repository: Repository, pack: _Pack, engine: Blob, scratch: Path) -> list[str] | None:
    """Stores the chunks of an engine; returns their digests in order, None if it is not whole."""
    try:
        path = repository.blobs.whole(engine, scratch)
    except RepositoryError:
        return None
    order = [pack.add(data) for _, data in cut(path)]
    if path.parent == scratch:
        path.unlink()
    return order


def _list(
    engine: Blob, stored: Mapping[str, _Stored], written: Blob | None, order: Iterable[str]
) -> ChunkList:
    """Returns the list of an engine.

    Args:
        engine: The engine.
        stored: Where the model's chunks are.
        written: The pack that was written; None if nothing was new.
        order: Digests of the engine's chunks.
    """
    packs: dict[str, tuple[int, Blob]] = {}
    chunks: dict[str, tuple[int, Chunk]] = {}
    places = []
    for digest in order:
        if digest not in chunks:
            place = stored[digest]
            pack = place.pack or written
            assert pack is not None
            number, _ = packs.setdefault(pack.sha256, (len(packs), pack))
            chunk = Chunk(digest, place.size, number, place.offset, place.stored)
            chunks[digest] = (len(chunks), chunk)
        places.append(chunks[digest][0])
    return ChunkList(
        whole=engine,
        packs=tuple(pack for _, pack in packs.values()),
        chunks=tuple(chunk for _, chunk in chunks.values()),
        order=tuple(places),
    )
