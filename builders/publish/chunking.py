"""Stores engines and ONNX exports as chunks, so that the same weights are stored and sent once.

The chunks of a model are stored once: an engine refers to those of the model's other engines and of
its ONNX. The new chunks of a run are in one pack.

Nothing is deleted here. In a repository that stores chunks only, what is also stored whole becomes
garbage, which ``zoo-farm gc`` collects when nobody reads it any more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from typing_extensions import assert_never

from builders.publish.chunk_lists import Listed, naming
from zoo.repository.chunked import packed
from zoo.repository.repository import Repository
from zoo.schema.chunks import Chunk, Chunking, ChunkList, Pieces
from zoo.schema.index import ModelIndex
from zoo.schema.layout import CHUNKED
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


def in_chunks(repository: Repository, index: ModelIndex, chunking: Chunking) -> ModelIndex:
    """Stores a model's engines as a repository is to store them, and returns its index.

    Raises:
        MissingPackageError: The extra ``chunks`` is not installed.
    """
    match chunking:
        case Chunking.OFF:
            return naming(index, Listed())
        case Chunking.ON:  # withdrawn ones are not downloaded
            offered = (entry for entry in index.engines if entry.status != Status.WITHDRAWN)
            engines = {entry.engine.sha256: entry.engine for entry in offered}
            stored = _store(repository, engines, Listed.of(index).engines)
            return naming(index, Listed({sha256: one.listed for sha256, one in stored.items()}))
        case Chunking.ONLY:
            return _only_in_chunks(repository, index)
        case _:
            assert_never(chunking)


def _only_in_chunks(repository: Repository, index: ModelIndex) -> ModelIndex:
    """Stores a model's engines and ONNX exports as chunks, and returns its index."""
    engines = {entry.engine.sha256: entry.engine for entry in index.engines}
    onnx = {blob.sha256: blob for blob in _exports(repository, index.model)}
    named = Listed.of(index)
    stored = _store(repository, {**engines, **onnx}, {**named.onnx, **named.engines})
    for pieces in stored.values():
        repository.chunks.pieces.add(pieces)
    lists = {sha256: pieces.listed for sha256, pieces in stored.items()}
    own = {sha256: listed for sha256, listed in lists.items() if sha256 in engines}
    of_onnx = {sha256: listed for sha256, listed in lists.items() if sha256 in onnx}
    return naming(index, Listed(own, frozenset(own), of_onnx))


def _exports(repository: Repository, model: str) -> Iterator[Blob]:
    for entry in repository.store.list(f"exports/{model}/"):
        export = repository.any_export(model, PurePosixPath(entry.key).stem)
        if export is not None:
            yield export.onnx


def restore_whole(repository: Repository) -> int:
    """Stores whole again what is stored as chunks only; returns how much that was.

    Raises:
        MissingPackageError: zstd is not installed.
        RepositoryError: Something is damaged; what was restored before it stays.
    """
    restored = 0
    for entry in list(repository.store.list(CHUNKED)):
        pieces = repository.read(entry.key, Pieces)
        if pieces is None or repository.blobs.is_whole(pieces.whole):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            repository.blobs.fetch(pieces.whole, path := Path(scratch) / "whole")
            repository.blobs.add(path)
        restored += 1
    return restored


def _store(
    repository: Repository, blobs: Mapping[str, Blob], named: Mapping[str, Blob]
) -> dict[str, Pieces]:
    """Stores blobs as chunks; returns by digest what each is made of.

    Those that are missing or damaged have nothing. A list that is missing or damaged, or whose
    packs are, is made again.

    Args:
        repository: Where they are stored.
        blobs: The blobs, by digest.
        named: Lists that the signed index names, by the digests of their blobs.

    Raises:
        MissingPackageError: The extra ``chunks`` is not installed.
    """
    stored: dict[str, Pieces] = {}
    seems_whole = cache(repository.blobs.seems_whole)
    with tempfile.TemporaryDirectory() as scratch, _pack(Path(scratch) / "pack") as pack:
        for sha256, blob in blobs.items():
            listed = named.get(sha256)
            known = None if listed is None else _known(repository, blob, listed)
            if listed and known and all(map(seems_whole, known.packs)):
                pack.know(known)
                stored[sha256] = Pieces(whole=blob, listed=listed, packs=known.packs)
        orders = {
            sha256: order
            for sha256, blob in blobs.items()
            if sha256 not in stored
            and (order := _cut(repository, pack, blob, Path(scratch))) is not None
        }
        pack.close()
        written = repository.blobs.add(pack.path) if pack.path.stat().st_size else None
        for sha256, order in orders.items():
            path = Path(scratch) / "list"
            made = _list(blobs[sha256], pack.chunks, written, order)
            path.write_bytes(packed(made))
            listed = repository.blobs.add(path)
            stored[sha256] = Pieces(whole=blobs[sha256], listed=listed, packs=made.packs)
    return stored


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


def _known(repository: Repository, blob: Blob, listed: Blob) -> ChunkList | None:
    """Returns the list of a blob, None if it is missing or damaged."""
    try:
        return repository.chunks.list_of(blob, listed)
    except (KeyError, RepositoryError):
        return None


def _cut(repository: Repository, pack: _Pack, blob: Blob, scratch: Path) -> list[str] | None:
    """Stores the chunks of a blob; returns their digests in order, None if it is not whole."""
    try:
        path = repository.blobs.whole(blob, scratch)
    except RepositoryError:
        return None
    order = [pack.add(data) for _, data in cut(path)]
    if path.parent == scratch:
        path.unlink()
    return order


def _list(
    whole: Blob, stored: Mapping[str, _Stored], written: Blob | None, order: Iterable[str]
) -> ChunkList:
    """Returns the list of a blob.

    Args:
        whole: The blob.
        stored: Where the model's chunks are.
        written: The pack that was written; None if nothing was new.
        order: Digests of the blob's chunks.
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
        whole=whole,
        packs=tuple(pack for _, pack in packs.values()),
        chunks=tuple(chunk for _, chunk in chunks.values()),
        order=tuple(places),
    )
