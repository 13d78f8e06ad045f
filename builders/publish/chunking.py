"""Stores engines and ONNX exports as chunks, so that the same weights are stored and sent once.

The chunks of a model are stored once: an engine refers to those of the model's other engines and of
its ONNX. The new chunks of a run are in one pack. Chunks of which an engine has only a few in one
place are stored again if readers would otherwise send more requests than for the whole engine.

Nothing is deleted here. In a repository that stores chunks only, what is also stored whole becomes
garbage, which ``zoo-farm gc`` collects when nobody reads it any more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from typing_extensions import assert_never

from builders.publish.chunk_lists import Listed, naming, stated_pieces
from builders.publish.packs import Pack, Stored, new_pack, scattered
from zoo.repository.blobs import REPAIR, damage_of_chunks
from zoo.repository.chunked import packed
from zoo.repository.repair import named_blobs
from zoo.repository.repository import Repository
from zoo.schema.chunks import Chunk, Chunking, ChunkList, Pieces
from zoo.schema.index import ModelIndex
from zoo.schema.layout import CHUNKED
from zoo.schema.records import Blob, Status
from zoo.util import zstd
from zoo.util.cuts import can_cut, cut
from zoo.util.errors import MissingPackageError, RepositoryError


@dataclass(frozen=True)
class _Cut:
    """The chunks of a blob.

    Attributes:
        order: Their digests, from the blob's first byte to its last.
        places: Where each is stored.
    """

    order: list[str]
    places: Mapping[str, Stored]


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
    for sha256, pieces in _all_pieces(repository).items():
        blob = pieces.whole if pieces else Blob(sha256=sha256, size=0)
        if repository.blobs.is_whole(blob) or (pieces is None and repository.blobs.find(sha256)):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            damage = "missing"
            if pieces is not None:
                damage = damage_of_chunks(repository.store, blob, Path(scratch), pieces) or ""
            if not damage:
                repository.blobs.add(Path(scratch) / sha256)
                restored += 1
            elif any(named.sha256 == sha256 for _, named in named_blobs(repository)):
                raise RepositoryError(
                    f"{repository.store.url}: blob {sha256} can't be stored whole: it is {damage}",
                    hint=REPAIR,
                )
    return restored


def _all_pieces(repository: Repository) -> dict[str, Pieces | None]:
    """Returns by digest what blobs are assembled from: as the index says, or small objects."""
    known = {sha256: one.pieces for sha256, one in stated_pieces(repository).items()}
    for entry in list(repository.store.list(CHUNKED)):
        sha256 = PurePosixPath(entry.key).stem
        if known.get(sha256) is None:
            known[sha256] = repository.read(entry.key, Pieces)
    return known


def not_in_chunks(repository: Repository) -> Iterator[tuple[str, Blob]]:
    """Yields model and blob of each engine that is not stored as chunks, withdrawn ones aside.

    After :func:`in_chunks` these are the ones that are missing or damaged.
    """
    for index in repository.model_indexes():
        for entry in index.engines:
            if entry.chunks is None and entry.status != Status.WITHDRAWN:
                yield index.model, entry.engine


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
    with tempfile.TemporaryDirectory() as scratch, new_pack(Path(scratch) / "pack") as pack:
        for sha256, blob in blobs.items():
            listed = named.get(sha256)
            known = None if listed is None else _known(repository, blob, listed)
            if listed and known and all(map(seems_whole, known.packs)):
                pack.know(known)
                stored[sha256] = Pieces(whole=blob, listed=listed, packs=known.packs)
        cuts = {
            sha256: made
            for sha256, blob in blobs.items()
            if sha256 not in stored
            and (made := _cut(repository, pack, blob, Path(scratch))) is not None
        }
        pack.close()
        written = repository.blobs.add(pack.path) if pack.path.stat().st_size else None
        for sha256, made in cuts.items():
            path = Path(scratch) / "list"
            chunks = _list(blobs[sha256], made, written)
            path.write_bytes(packed(chunks))
            listed = repository.blobs.add(path)
            stored[sha256] = Pieces(whole=blobs[sha256], listed=listed, packs=chunks.packs)
    return stored


def must_be_able(repository: Repository) -> None:
    """Checks that engines can be stored as chunks here.

    Raises:
        MissingPackageError: The extra ``chunks`` is not installed.
    """
    packages = {"pyfastcdc": can_cut(), "zstd": zstd.is_installed()}
    lacking = [name for name, is_there in packages.items() if not is_there]
    if lacking:
        verb = "is" if len(lacking) == 1 else "are"
        raise MissingPackageError(
            f"{repository.store.url} stores engines as chunks, for which {' and '.join(lacking)} "
            f"{verb} not installed",
            hint=f"{zstd.INSTALL}, or turn it off: zoo-farm chunks off",
        )


def _known(repository: Repository, blob: Blob, listed: Blob) -> ChunkList | None:
    """Returns the list of a blob, None if it is missing or damaged."""
    try:
        return repository.chunks.list_of(blob, listed)
    except (KeyError, RepositoryError):
        return None


def _cut(repository: Repository, pack: Pack, blob: Blob, scratch: Path) -> _Cut | None:
    """Stores the chunks of a blob; returns None if it is not whole."""
    try:
        path = repository.blobs.whole(blob, scratch)
    except RepositoryError:
        return None
    order: list[str] = []
    offsets: dict[str, int] = {}
    for offset, data in cut(path):
        order.append(digest := pack.add(data))
        offsets.setdefault(digest, offset)
    places = {digest: pack.chunks[digest] for digest in offsets}
    with path.open("rb") as file:
        for digest in scattered(places, pack.size, blob.size):
            file.seek(offsets[digest])
            places[digest] = pack.store(file.read(places[digest].size))
    if path.parent == scratch:
        path.unlink()
    return _Cut(order, places)


def _list(whole: Blob, made: _Cut, written: Blob | None) -> ChunkList:
    """Returns the list of a blob.

    Args:
        whole: The blob.
        made: Its chunks.
        written: The pack that was written; None if nothing was new.
    """
    packs: dict[str, tuple[int, Blob]] = {}
    chunks: dict[str, tuple[int, Chunk]] = {}
    places = []
    for digest in made.order:
        if digest not in chunks:
            place = made.places[digest]
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
