"""Garbage: what nothing in a repository needs any more.

Needed is what the signed index names, what candidates name, and what all of these are made from.
What is not needed is condemned first, and deleted only when it has been condemned for a grace time
in every run since: builders and publishers may be at work, and what they come to need meanwhile is
spared. Deleting goes from names to bytes, so that nothing ever names what is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import ValidationError

from builders.runs import newest_night
from zoo.digest import sha256_bytes
from zoo.layout import (
    CONDEMNED,
    RUNS,
    blob_key,
    disabled_key,
    export_key,
    hashed_key,
    record_key,
    state_key,
)
from zoo.record import BuildRecord, DisabledRecord, ExportRecord
from zoo.repository import Repository
from zoo.stores import Entry

_COLLECTED = (
    "runs/", "candidates/", "refused/", "attestations/", "records/", "exports/", "disabled/",
    "states/", "index/", "blobs/",
)  # fmt: skip
"""What is looked at, in the order in which it is deleted: what names comes before what is named."""


@dataclass
class Garbage:
    """What a run found.

    Attributes:
        condemned: Keys that nothing needs, to how long that has been known.
        deleted: Keys that were, or would be, deleted, to their sizes in bytes.
        abandoned: What killed writers left behind, and was or would be deleted.
        kept: How many objects are needed.
    """

    condemned: dict[str, timedelta] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    abandoned: list[str] = field(default_factory=list)
    kept: int = 0


def collect(
    repository: Repository, grace: timedelta, now: datetime, *, delete: bool = False
) -> Garbage:
    """Finds what nothing needs, and deletes what has been that for long enough.

    Args:
        repository: Reads the index as it is signed.
        grace: How long something is condemned before it goes; longer than any job takes.
        now: The time.
        delete: Whether to condemn and delete; else only to say what would be.
    """
    store = repository.store
    with store.lock("publish"):  # no index is signed meanwhile
        before = _condemned(repository)
        garbage, since = Garbage(), {}
        needed = set(_needed(repository))
        for prefix in _COLLECTED:
            for entry in list(store.list(prefix)):
                if entry.key in needed:
                    garbage.kept += 1
                    continue
                first = _first_condemned(entry, before, now)
                since[entry.key] = first
                garbage.condemned[entry.key] = now - first
                if now - first >= grace and now - entry.modified >= grace:
                    garbage.deleted[entry.key] = entry.size
        for left in list(store.abandoned(now - grace)):
            garbage.abandoned.append(left.name)
            if delete:
                store.discard(left)
        if delete:
            for key in garbage.deleted:
                store.delete(key)
                del since[key]
            text = json.dumps({key: when.isoformat() for key, when in since.items()}, indent=1)
            store.put(CONDEMNED, text.encode())
    return garbage


def _condemned(repository: Repository) -> dict[str, datetime]:
    try:
        data = json.loads(repository.store.get(CONDEMNED))
        return {str(key): datetime.fromisoformat(when) for key, when in data.items()}
    except (KeyError, ValueError, ValidationError):
        return {}


def _first_condemned(entry: Entry, before: dict[str, datetime], now: datetime) -> datetime:
    """Says since when an object is condemned; one that was written since is condemned anew."""
    first = before.get(entry.key)
    return now if first is None or entry.modified > first else first


def _needed(repository: Repository) -> Iterator[str]:
    """Yields the key of everything that is needed."""
    for index in repository.model_indexes():
        data = index.to_json()
        yield f"index/{index.model}.json"
        yield hashed_key(f"index/{index.model}.json", sha256_bytes(data))
        for entry in index.engines:
            record = repository.record(index.model, entry.record)
            if record is not None:
                yield from _of_record(repository, index.model, record)
        for cell in index.disabled:
            yield disabled_key(index.model, cell.record)
        # The newest exports are what the next target of a model is built from.
        yield from _newest_exports(repository, index.model)
    for key in repository.candidates():
        candidate = repository.candidate(key)
        yield key
        if candidate is not None:
            for name in candidate.records:
                if (found := repository.record(candidate.card.model, name)) is not None:
                    yield from _of_record(repository, candidate.card.model, found)
            for cell in candidate.disabled:
                yield disabled_key(candidate.card.model, cell.record)
    if night := newest_night(repository):
        yield from (run.key for run in repository.store.list(f"{RUNS}{night}/"))
    for key, blob in repository.named_blobs("timing-caches/"):
        yield key
        yield blob_key(blob.sha256)


def _of_record(repository: Repository, model: str, record: BuildRecord) -> Iterator[str]:
    yield record_key(model, record.key)
    for entry in repository.store.list(f"attestations/{record.engine.sha256}/"):
        yield entry.key
    for blob in record.blobs:
        yield blob_key(blob.sha256)
    if (export := repository.export(model, record.export_key)) is not None:
        yield from _of_export(repository, model, export)


def _of_export(
    repository: Repository, model: str, export: ExportRecord | DisabledRecord
) -> Iterator[str]:
    if isinstance(export, ExportRecord):
        yield export_key(model, export.inputs.key)
        yield blob_key(export.onnx.sha256)
        yield blob_key(export.golden.sha256)
    weights = export.inputs.weights
    if weights.seeded and (state := repository.state(model, weights.digest)) is not None:
        yield state_key(model, weights.digest)
        yield blob_key(state.state.sha256)


def _newest_exports(repository: Repository, model: str) -> Iterator[str]:
    """Yields what belongs to the newest export of each dialect and precision."""
    newest: dict[tuple[str, str], tuple[datetime, ExportRecord]] = {}
    for entry in repository.store.list(f"exports/{model}/"):
        export = repository.export(model, entry.key.rsplit("/", 1)[1].removesuffix(".json"))
        if export is None:
            continue
        form = (export.inputs.dialect, export.inputs.precision)
        if form not in newest or newest[form][0] < entry.modified:
            newest[form] = (entry.modified, export)
    for _, export in newest.values():
        yield from _of_export(repository, model, export)
