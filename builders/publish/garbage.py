"""Collects garbage: finds and deletes unreferenced objects of a repository.

An object is referenced if it is signed metadata; if the signed index or a candidate names it; if it
was written within the grace period, because it may still be proposed; or if such an object was made
from it. An unreferenced object is first condemned, and deleted once it has stayed unreferenced for
a grace period: builders and publishers may be running, and what they refer to in the meantime is
spared. References are deleted before the objects that they name.

In a repository that stores chunks only, an engine or ONNX that can be assembled is not needed
whole: the file is deleted in the same way, once it has been assembled and hashed.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from builders.history.nights import newest_night
from zoo.client.client import Client
from zoo.repository.blobs import damage_of_chunks
from zoo.repository.files import LARGEST_RECORD
from zoo.repository.repair import named_blobs
from zoo.repository.repository import Repository
from zoo.schema.chunks import Chunking
from zoo.schema.index import Candidate, EngineEntry, ModelIndex
from zoo.schema.later import (
    AnyBuild,
    AnyExport,
    LaterBuildRecord,
    LaterCandidate,
    LaterExportRecord,
    read_any,
)
from zoo.schema.layout import (
    CHUNKED,
    CONDEMNED,
    METADATA,
    RUNS,
    blob_key,
    export_key,
    failed_export_key,
    hashed_key,
    pieces_key,
    record_key,
    state_key,
)
from zoo.schema.old_failures import disabled_key
from zoo.schema.records import Blob, BuildRecord, ExportRecord, Record
from zoo.stores import Entry
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError, TooLongError
from zoo.util.loading import parse_json

_COLLECTED = (
    "runs/", "candidates/", "refused/", METADATA, "index/", "attestations/", "records/", "exports/",
    "disabled/", "states/", CHUNKED, "blobs/",
)  # fmt: skip
"""Prefixes to collect, in order of deletion: references before the objects that they name."""

_ALL_MODELS = re.compile(r"[0-9a-f]{64}\.index\.json")
"""Signed versions of ``index.json``; deleted together with the other files of the index."""

_FAILED_EXPORT = re.compile(r"failures/[^/]+/[0-9a-f]{64}/export\.json")
"""Failures of exports are collected; those of engines are small and kept."""

_ROOT = re.compile(rf"{METADATA}\d+\.root\.json")
"""Roots are kept: clients that trust an old root follow them to the newest."""


_LARGEST_LIST = 2**28

R = TypeVar("R", bound=Record)
L = TypeVar("L", bound=Record)


@dataclass
class Garbage:
    """The result of a run.

    Attributes:
        condemned: How long each unreferenced key has been condemned.
        deleted: Size in bytes of each key that was, or would be, deleted.
        abandoned: Leftovers of killed writers that were, or would be, deleted.
        kept: Number of referenced objects.
        later: Referenced records that a later version wrote.
    """

    condemned: dict[str, timedelta] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    abandoned: list[str] = field(default_factory=list)
    kept: int = 0
    later: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Scan:
    """A search for referenced objects.

    Attributes:
        repository: The repository.
        only: Whether it stores chunks only.
        chunked: Keys of what blobs are assembled from.
        later: Keys of the referenced records that a later version wrote.
        replaced: Blobs that are referenced but not needed whole, by their keys.
    """

    repository: Repository
    only: bool
    chunked: frozenset[str]
    later: set[str] = field(default_factory=set)
    replaced: dict[str, Blob] = field(default_factory=dict)

    @classmethod
    def of(cls, repository: Repository) -> _Scan:
        """Returns a search that has found nothing yet."""
        index = repository.index()
        return cls(
            repository,
            only=index is not None and index.chunks is Chunking.ONLY,
            chunked=frozenset(entry.key for entry in repository.store.list(CHUNKED)),
        )


def collect(client: Client, grace: timedelta, now: datetime, *, delete: bool = False) -> Garbage:
    """Finds unreferenced objects and deletes those condemned for the grace period.

    Args:
        client: Reads the repository and its signed index.
        grace: Time from condemning an object to deleting it; longer than any job runs.
        now: The time.
        delete: Whether to condemn and delete; False only reports.

    Raises:
        TrustError: The index has expired or is not signed by its keys, so objects that it does not
            name may still be referenced.
        MissingPackageError: Engines are stored as chunks, and zstd is not installed.
        RepositoryError: It can't be read.
    """
    repository, store = client.repository, client.repository.store
    with store.lock("publish"):  # no index is signed during the run
        client.signed.look_again()  # it may have been signed while waiting for the lock
        before = _condemned(repository)
        garbage, since, scan = Garbage(), {}, _Scan.of(repository)
        needed = {*_signed(scan, client), *_proposed(scan), *_young(scan, now - grace)}
        needed |= set(_written_again(repository))
        for entry in sorted(_collected(repository), key=_order):
            if entry.key in needed or _ROOT.fullmatch(entry.key):
                garbage.kept += 1
                continue
            first = _first_condemned(entry, before, now)
            since[entry.key] = first
            garbage.condemned[entry.key] = now - first
            if now - first >= grace and now - entry.modified >= grace:
                garbage.deleted[entry.key] = entry.size
        for leftover in list(store.abandoned(now - grace)):
            garbage.abandoned.append(leftover.name)
            if delete:
                store.discard(leftover)
        if delete:
            for key in {*_proposed(scan), *_young(scan, now - grace)}:
                garbage.deleted.pop(key, None)  # newly referenced
            for key in _irreplaceable(scan, garbage.deleted):
                del garbage.deleted[key]
            for key in garbage.deleted:
                store.delete(key)
                del since[key]
            text = json.dumps({key: when.isoformat() for key, when in since.items()}, indent=1)
            store.put(CONDEMNED, text.encode())
        garbage.later = sorted(scan.later)
    return garbage


def _collected(repository: Repository) -> Iterator[Entry]:
    """Yields the objects that may be collected; call it after finding the references."""
    for entry in repository.store.list(""):
        other = _ALL_MODELS.fullmatch(entry.key) or _FAILED_EXPORT.fullmatch(entry.key)
        if other or entry.key.startswith(_COLLECTED):
            yield entry


def _order(entry: Entry) -> int:
    """Returns the rank of an object in the order of deletion."""
    folder = "index/" if _ALL_MODELS.fullmatch(entry.key) else entry.key
    folder = "disabled/" if _FAILED_EXPORT.fullmatch(folder) else folder
    return next(n for n, prefix in enumerate(_COLLECTED) if folder.startswith(prefix))


def _young(scan: _Scan, since: datetime) -> Iterator[str]:
    """Yields keys of engines and exports written since a time, which may still be proposed."""
    for entry in list(scan.repository.store.list("records/")):
        model = entry.key.split("/")[1]
        if entry.modified > since and (
            record := _parsed(scan, entry.key, BuildRecord, LaterBuildRecord)
        ):
            yield from _of_record(scan, model, record)
    for entry in list(scan.repository.store.list("exports/")):
        model = entry.key.split("/")[1]
        if entry.modified > since and (
            export := _parsed(scan, entry.key, ExportRecord, LaterExportRecord)
        ):
            yield from _of_export(scan, model, export)


def _parsed(scan: _Scan, key: str, kind: type[R], later: type[L]) -> R | L | None:
    """Reads an untrusted record; returns None if it is missing or malformed.

    Raises:
        RepositoryError: The store can't be read.
    """
    try:
        return read_any(scan.repository.store.get(key, limit=LARGEST_RECORD), kind, later)
    except (KeyError, ValidationError, TooLongError):
        return None


def _condemned(repository: Repository) -> dict[str, datetime]:
    try:
        data = parse_json(repository.store.get(CONDEMNED, limit=_LARGEST_LIST))
        return {str(key): datetime.fromisoformat(when) for key, when in data.items()}
    except (KeyError, ValueError, TypeError, AttributeError):  # then everything is condemned again
        return {}


def _first_condemned(entry: Entry, before: dict[str, datetime], now: datetime) -> datetime:
    """Returns when an object was condemned: now, if it is new or was written again since."""
    first = before.get(entry.key)
    return now if first is None or entry.modified > first else first


def _signed(scan: _Scan, client: Client) -> Iterator[str]:
    """Yields all keys that the signed index refers to, and those of the metadata."""
    paths = ["index.json", *(f"index/{row.model}.json" for row in client.index().models)]
    for path in paths:
        data = client.signed.read(path)
        client.signed.must_be_fresh()
        if data is None:
            continue
        yield path
        yield hashed_key(path, sha256_bytes(data))  # of the signed bytes
        if path == "index.json":
            continue
        index = ModelIndex.model_validate_json(data)
        for entry in index.engines:
            record = scan.repository.any_record(index.model, entry.record)
            if record is not None:
                yield from _of_record(scan, index.model, record)
            yield from (blob_key(blob.sha256) for blob in entry.documents.values())
            yield from _of_chunks(scan, entry)
        for cell in index.disabled:
            yield disabled_key(index.model, cell.record)
            yield failed_export_key(index.model, cell.record)
        # A model's next target is built from its newest exports.
        yield from _newest_exports(scan, index.model)
    yield from (key for key, _ in client.signed.metadata())


def _proposed(scan: _Scan) -> Iterator[str]:
    """Yields all keys that candidates refer to."""
    for key in scan.repository.candidates.waiting():
        candidate = _parsed(scan, key, Candidate, LaterCandidate)
        yield key
        if candidate is not None:
            for name in candidate.records:
                if (record := scan.repository.any_record(candidate.card.model, name)) is not None:
                    yield from _of_record(scan, candidate.card.model, record)
            for cell in candidate.disabled:
                yield disabled_key(candidate.card.model, cell.record)
                yield failed_export_key(candidate.card.model, cell.record)


def _written_again(repository: Repository) -> Iterator[str]:
    """Yields the keys of the newest night's runs and of the timing caches."""
    if night := newest_night(repository):
        yield from (run.key for run in repository.store.list(f"{RUNS}{night}/"))
    for key, blob in named_blobs(repository, "timing-caches/"):
        yield key
        yield blob_key(blob.sha256)


def _of_record(scan: _Scan, model: str, record: AnyBuild) -> Iterator[str]:
    yield record_key(model, record.key)
    if isinstance(record, LaterBuildRecord):
        scan.later.add(record_key(model, record.key))
    for entry in scan.repository.store.list(f"attestations/{record.engine.sha256}/"):
        yield entry.key
    for blob in record.blobs:
        yield from _of_blob(scan, blob)
    if (export := scan.repository.any_export(model, record.export_key)) is not None:
        yield from _of_export(scan, model, export)


def _of_blob(scan: _Scan, blob: Blob) -> Iterator[str]:
    """Yields the keys of a blob, whole or as chunks."""
    key, blobs = blob_key(blob.sha256), scan.repository.blobs
    pieces = None
    if pieces_key(blob.sha256) in scan.chunked:
        with suppress(RepositoryError):  # else it can't be used
            pieces = blobs.pieces(blob)
    if pieces is None or (not scan.only and blobs.is_whole(blob)):
        yield key
        return
    scan.replaced[key] = blob
    yield pieces_key(blob.sha256)
    yield from (blob_key(piece.sha256) for piece in pieces.blobs)


def _irreplaceable(scan: _Scan, condemned: Iterable[str]) -> list[str]:
    """Returns which of these blobs can't be assembled from their chunks although they are needed.

    Raises:
        MissingPackageError: zstd is not installed.
    """
    found = []
    for key in condemned:
        if (blob := scan.replaced.get(key)) is not None:
            with tempfile.TemporaryDirectory() as scratch:
                if damage_of_chunks(scan.repository.store, blob, Path(scratch)) is not None:
                    found.append(key)
    return found


def _of_chunks(scan: _Scan, entry: EngineEntry) -> Iterator[str]:
    """Yields the keys of an engine's list of chunks and of the packs that it needs.

    A list that is missing or damaged needs no packs: nobody can read it, and the publisher makes it
    again.

    Raises:
        MissingPackageError: zstd is not installed, so the packs can't be known.
    """
    if entry.chunks is None:
        return
    yield blob_key(entry.chunks.sha256)
    with suppress(KeyError, RepositoryError):
        for blob in scan.repository.chunks.blobs_of(entry.engine, entry.chunks):
            yield blob_key(blob.sha256)


def _of_export(scan: _Scan, model: str, export: AnyExport) -> Iterator[str]:
    yield export_key(model, export.inputs.key)
    if isinstance(export, LaterExportRecord):
        scan.later.add(export_key(model, export.inputs.key))
    yield from _of_blob(scan, export.onnx)
    yield from _of_blob(scan, export.golden)
    weights = export.inputs.weights
    if weights.seeded and (state := scan.repository.state(model, weights.digest)) is not None:
        yield state_key(model, weights.digest)
        yield blob_key(state.state.sha256)


def _form(export: AnyExport) -> tuple[object, ...]:
    """Returns what tells the forms of a model's exports apart."""
    if isinstance(export, LaterExportRecord):
        stated = export.inputs.stated
        how = stated.get("lowering")
        named = [stated.get(name) for name in ("dialect", "precision")]
        if isinstance(how, dict):
            named += [how.get(name) for name in ("placing", "rest", "safety")]
        return tuple(map(str, named))
    inputs, lowering = export.inputs, export.inputs.lowering
    if lowering is None:
        return inputs.dialect, inputs.precision
    return inputs.dialect, inputs.precision, lowering.placing, lowering.rest, lowering.safety


def _newest_exports(scan: _Scan, model: str) -> Iterator[str]:
    """Yields the keys of the newest export of each form and of its blobs."""
    newest: dict[object, tuple[datetime, AnyExport]] = {}
    for entry in scan.repository.store.list(f"exports/{model}/"):
        export = _parsed(scan, entry.key, ExportRecord, LaterExportRecord)
        if export is None:
            continue
        form = _form(export)
        if form not in newest or newest[form][0] < entry.modified:
            newest[form] = (entry.modified, export)
    for _, export in newest.values():
        yield from _of_export(scan, model, export)
