"""The lists of chunks that an index names for its engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from zoo.repository.repository import Repository
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.records import CHUNKS_ONLY, SCHEMA_VERSION, Blob


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


def stated_lists(repository: Repository) -> Iterator[tuple[Blob, Blob]]:
    """Yields each list of chunks that an index names for an engine which is also stored whole.

    Yields:
        The list, and the engine.
    """
    entries = (entry for index in repository.model_indexes() for entry in index.engines)
    stated = {
        entry.chunks.sha256: (entry.chunks, entry.engine)
        for entry in entries
        if entry.chunks is not None and not entry.chunks_only
    }
    yield from stated.values()


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
