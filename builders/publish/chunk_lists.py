"""The lists of chunks that an index names for its engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from zoo.repository.repository import Repository
from zoo.schema.index import ModelIndex
from zoo.schema.records import Blob


def without_chunks(index: ModelIndex) -> ModelIndex:
    """Returns an index that names no lists of chunks."""
    return naming(index, {})


def carried_over(index: ModelIndex, previous: ModelIndex | None) -> ModelIndex:
    """Returns an index with the lists of chunks that the previous one names for its engines."""
    known = previous.engines if previous else ()
    return naming(index, {entry.engine.sha256: entry.chunks for entry in known if entry.chunks})


def stated_lists(repository: Repository) -> Iterator[tuple[Blob, Blob]]:
    """Yields each list of chunks that an index names, with its engine."""
    entries = (entry for index in repository.model_indexes() for entry in index.engines)
    stated = {
        entry.chunks.sha256: (entry.chunks, entry.engine)
        for entry in entries
        if entry.chunks is not None
    }
    yield from stated.values()


def naming(index: ModelIndex, lists: Mapping[str, Blob]) -> ModelIndex:
    """Returns an index with these lists, by the digests of its engines, and no others."""
    wanted = [lists.get(entry.engine.sha256) for entry in index.engines]
    if wanted == [entry.chunks for entry in index.engines]:
        return index
    engines = (
        entry.model_copy(update={"chunks": chunks})
        for entry, chunks in zip(index.engines, wanted, strict=True)
    )
    return index.model_copy(update={"engines": tuple(engines)})
