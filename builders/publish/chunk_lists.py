"""The lists of chunks that an index names for its engines."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from zoo.repository.chunked import unpacked
from zoo.repository.repository import Repository
from zoo.schema.chunks import Pieces
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.records import CHUNKS_ONLY, SCHEMA_VERSION, Blob
from zoo.util.errors import RepositoryError


@dataclass(frozen=True)
class Listed:
    """The lists of chunks that an index names.

    Attributes:
        engines: Those of its engines, by their digests.
        only: The digests of the engines that are not stored whole.
        onnx: Those of its ONNX exports, by their digests.
    """

    engines: Mapping[str, Blob] = field(default_factory=dict)
    only: frozenset[str] = frozenset()
    onnx: Mapping[str, Blob] = field(default_factory=dict)

    @classmethod
    def of(cls, index: ModelIndex) -> Listed:
        """Returns what an index names."""
        engines = index.engines
        return cls(
            {entry.engine.sha256: entry.chunks for entry in engines if entry.chunks is not None},
            frozenset(entry.engine.sha256 for entry in engines if entry.chunks_only),
            index.onnx_chunks,
        )


def carried_over(index: ModelIndex, previous: ModelIndex | None) -> ModelIndex:
    """Returns an index with the lists of chunks that the previous one names."""
    return naming(index, Listed.of(previous) if previous else Listed())


@dataclass(frozen=True, kw_only=True)
class Stated:
    """An engine or ONNX export that an index names a list of chunks for.

    Attributes:
        sha256: Its digest.
        listed: The list.
        pieces: What the list says that it is assembled from; None if the list is missing or
            damaged.
    """

    sha256: str
    listed: Blob
    pieces: Pieces | None


def stated_pieces(repository: Repository) -> dict[str, Stated]:
    """Returns by digest each engine and ONNX export that an index names a list of chunks for.

    Lists are signed through the index, as the small objects are not that say the same to those who
    have no index.
    """
    stated: dict[str, Stated] = {}
    for index in repository.model_indexes():
        named = Listed.of(index)
        for sha256, listed in {**named.onnx, **named.engines}.items():
            pieces = _pieces(repository, sha256, listed)
            stated[sha256] = Stated(sha256=sha256, listed=listed, pieces=pieces)
    return stated


def _pieces(repository: Repository, sha256: str, listed: Blob) -> Pieces | None:
    with suppress(KeyError, RepositoryError, ValueError):
        chunks = unpacked(repository.chunks.read(listed))
        if chunks.whole.sha256 == sha256:
            return Pieces(whole=chunks.whole, listed=listed, packs=chunks.packs)
    return None


def naming(index: ModelIndex, lists: Listed) -> ModelIndex:
    """Returns an index with these lists and no others."""
    if Listed.of(index) == _restricted(lists, index):
        return index
    engines = (_naming(entry, lists) for entry in index.engines)
    return index.model_copy(
        update={"engines": tuple(engines), "onnx_chunks": dict(sorted(lists.onnx.items()))}
    )


def _naming(entry: EngineEntry, lists: Listed) -> EngineEntry:
    sha256 = entry.engine.sha256
    only = sha256 in lists.only
    version = CHUNKS_ONLY if only else SCHEMA_VERSION
    return entry.model_copy(
        update={
            "chunks": lists.engines.get(sha256), "chunks_only": only, "schema_version": version,
        }
    )  # fmt: skip


def _restricted(lists: Listed, index: ModelIndex) -> Listed:
    """Returns the lists without those of engines that an index does not have."""
    there = {entry.engine.sha256 for entry in index.engines}
    engines = {sha256: blob for sha256, blob in lists.engines.items() if sha256 in there}
    return Listed(engines, lists.only & there, lists.onnx)
