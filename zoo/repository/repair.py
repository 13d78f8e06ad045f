"""Finds the blobs that records name, and removes damaged ones with their record."""

from __future__ import annotations

from collections.abc import Iterator

from zoo.repository.repository import Repository
from zoo.schema.records import Blob, BuildRecord, ExportRecord, StateRecord, TimingCacheRecord

_NAMING: dict[str, type[StateRecord | ExportRecord | BuildRecord | TimingCacheRecord]] = {
    "states/": StateRecord,
    "exports/": ExportRecord,
    "records/": BuildRecord,
    "timing-caches/": TimingCacheRecord,
}


def named_blobs(repository: Repository, prefix: str = "") -> Iterator[tuple[str, Blob]]:
    """Yields the key of every record under a prefix with each blob it names."""
    for folder, kind in _NAMING.items():
        for entry in repository.store.list(folder) if folder.startswith(prefix) else ():
            record = repository.read(entry.key, kind)
            yield from ((entry.key, blob) for blob in (record.blobs if record else ()))


def forget(repository: Repository, key: str, blob: Blob) -> None:
    """Deletes a blob and the record that names it, so that the next run recreates both."""
    repository.store.delete(key)
    repository.blobs.discard(blob)
