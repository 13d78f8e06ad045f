"""A repository: blobs, records, attestations and the index, in an object store.

Blobs are written first and the record that names them last, once. A process killed at any moment
leaves either a complete engine or nothing visible: clients see only what the signed index names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from zoo.repository.blobs import Blobs
from zoo.repository.candidates import Candidates
from zoo.repository.chunked import ChunkedBlobs
from zoo.repository.files import LARGEST_RECORD, RecordFiles
from zoo.repository.listed import ListedRecords
from zoo.schema.attestation_names import name_of
from zoo.schema.index import EngineEntry, Index, ModelIndex
from zoo.schema.later import AnyBuild, AnyExport, LaterBuildRecord, LaterExportRecord
from zoo.schema.layout import (
    ATTESTATIONS,
    export_key,
    failed_export_key,
    record_key,
    state_key,
    timing_cache_key,
)
from zoo.schema.old_failures import OldDisabled, disabled_key
from zoo.schema.records import (
    Attestation,
    Blob,
    BuildRecord,
    ExportRecord,
    FailureRecord,
    Kind,
    Record,
    RepositoryInfo,
    StateRecord,
    TimingCacheRecord,
)
from zoo.schema.targets import Toolchain
from zoo.stores import ObjectStore
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError

R = TypeVar("R", bound=Record)


SignAttestation = Callable[[Attestation, str | None], Attestation]
"""Signs an attestation, given the digest of the engine's build record if that is known."""


class IndexReader(Protocol):
    """Reads files of the index whose signatures were verified."""

    def read(self, path: str) -> bytes | None:
        """Returns ``index.json`` or ``index/<model>.json``, None if there is no such file."""
        ...


class Repository:
    """Reads and writes a repository.

    Args:
        store: The store that holds it.
        trusted: Reads the signed index. Without it the index is read unverified, which is enough
            for planning but never for loading an engine.
    """

    sign: SignAttestation | None = None
    """Signs what is attested, as a builder; None to leave it unsigned."""

    def __init__(self, store: ObjectStore, trusted: IndexReader | None = None) -> None:
        self.store = store
        self.blobs = Blobs(store)
        self.chunks = ChunkedBlobs(store)
        self.candidates = Candidates(store)
        self._files = RecordFiles(store)
        self.listed = ListedRecords(store, self._files)
        self._trusted = trusted

    # Kind

    def kind(self) -> Kind | None:
        """Returns the repository's kind, None if there is no repository yet."""
        info = self.read("repository.json", RepositoryInfo)
        return None if info is None else info.kind

    def claim(self, kind: Kind) -> None:
        """Creates the repository, or checks that an existing one is of this kind.

        Raises:
            RepositoryError: It is of the other kind.
        """
        self.store.put("repository.json", RepositoryInfo(kind=kind).to_json(), if_absent=True)
        if (existing := self.kind()) != kind:
            raise RepositoryError(
                f"{self.store.url} is a {existing} repository, but this run is a {kind}",
                hint="dry runs (seeded weights) and real engines never share a repository; "
                "set STORE= to another one",
            )

    # Records

    def state(self, model: str, recipe: str) -> StateRecord | None:
        """Returns the stored state of seeded weights."""
        return self.read(state_key(model, recipe), StateRecord)

    def add_state(self, record: StateRecord) -> None:
        """Writes a state record unless it exists; its blob must be stored."""
        self._add(state_key(record.model, record.recipe), record, record.blobs)

    def export(self, model: str, key: str) -> ExportRecord | None:
        """Returns the export with this key, None if there is none."""
        return self.read(export_key(model, key), ExportRecord)

    def add_export(self, record: ExportRecord) -> None:
        """Writes an export record unless it exists; its blobs must be stored."""
        key = export_key(record.inputs.model, record.inputs.key)
        self._add(key, record, record.blobs)

    def failed_export(self, model: str, key: str) -> FailureRecord | None:
        """Returns the failure record of an export, None if it has not failed."""
        if failure := self.read(failed_export_key(model, key), FailureRecord):
            return failure
        old = self.read(disabled_key(model, key), OldDisabled)
        return old.failure() if old else None

    def add_failed_export(self, record: FailureRecord) -> None:
        """Writes the failure record of an export unless it exists."""
        self._add(failed_export_key(record.inputs.model, record.inputs.key), record, ())

    def record(self, model: str, key: str) -> BuildRecord | None:
        """Returns the build record with this key, None if there is none.

        Raises:
            RepositoryError: The object is not a build record, or its inputs have another key.
        """
        record = self.read(record_key(model, key), BuildRecord)
        self._check_key(record, model, key)
        return record

    def any_record(self, model: str, key: str) -> AnyBuild | None:
        """Returns what a build record refers to, which a later version may have written.

        Raises:
            RepositoryError: The object is not a build record, or its inputs have another key.
        """
        where = record_key(model, key)
        record = self._files.parse_any(where, self._files.get(where), BuildRecord, LaterBuildRecord)
        self._check_key(record, model, key)
        return record

    def any_export(self, model: str, key: str) -> AnyExport | None:
        """Returns what an export refers to, which a later version may have written."""
        where = export_key(model, key)
        data = self._files.get(where)
        return self._files.parse_any(where, data, ExportRecord, LaterExportRecord)

    def _check_key(self, record: AnyBuild | None, model: str, key: str) -> None:
        if record is not None and record.key != key:
            raise RepositoryError(
                f"{self.store.url}: {record_key(model, key)} was modified: its inputs have another "
                "key",
                hint="delete this record; the next make zoo rebuilds the engine",
            )

    def add_record(self, record: BuildRecord) -> None:
        """Writes a build record unless it exists; its blobs must be stored."""
        self._add(record_key(record.inputs.model, record.key), record, record.blobs)

    def record_file(self, model: str, key: str) -> Blob:
        """Returns the hash and size of a build record's own file."""
        data = self.store.get(record_key(model, key), limit=LARGEST_RECORD)
        return Blob(sha256=sha256_bytes(data), size=len(data))

    def records(self, model: str) -> list[BuildRecord]:
        """Returns every build record of a model."""
        keys = [entry.key for entry in self.store.list(f"records/{model}/")]
        return [record for key in keys if (record := self.read(key, BuildRecord))]

    def attest(
        self, attestation: Attestation, build: str | None = None, record: str | None = None
    ) -> str:
        """Appends an attestation and returns its key.

        Args:
            attestation: The attestation.
            build: Key of the engine's build record, for its name; None if unknown.
            record: Digest of that record's file, for the builder's signature.
        """
        if self.sign is not None:
            attestation = self.sign(attestation, record)
        key = f"{ATTESTATIONS}{attestation.engine}/{name_of(attestation, build)}"
        self.store.put(key, attestation.to_json(), if_absent=True)
        return key

    def attestations(self, engine: str) -> list[Attestation]:
        """Returns the attestations of an engine, oldest first and each once."""
        keys = [entry.key for entry in self.store.list(f"{ATTESTATIONS}{engine}/")]
        return _in_order(self.read(key, Attestation) for key in keys)

    def timing_cache(self, device: str, toolchain: Toolchain) -> TimingCacheRecord | None:
        """Returns the newest timing cache for a GPU and a toolchain."""
        return self.read(timing_cache_key(device, toolchain), TimingCacheRecord)

    def put_timing_cache(self, record: TimingCacheRecord) -> None:
        """Replaces the record of a timing cache; its blob must be stored."""
        key = timing_cache_key(record.device, record.toolchain)
        self.blobs.require(record.cache, key)
        self.store.put(key, record.to_json())

    # Index

    def plain_index(self) -> Index | None:
        """Returns the unsigned copy of ``index.json``; None if it is missing or invalid."""
        try:
            return self.read("index.json", Index)
        except RepositoryError:
            return None

    def index(self) -> Index | None:
        """Returns ``index.json``, None if nothing has been published."""
        return self._files.parse("index.json", self.index_bytes("index.json"), Index)

    def model_index(self, model: str) -> ModelIndex | None:
        """Returns ``index/<model>.json``, None if nothing of the model is published."""
        key = f"index/{model}.json"
        return self._files.parse(key, self.index_bytes(key), ModelIndex)

    def model_indexes(self) -> Iterator[ModelIndex]:
        """Yields the index of every model that ``index.json`` names."""
        index = self.index()
        models = (self.model_index(row.model) for row in (index.models if index else ()))
        yield from filter(None, models)

    def listed_record(self, model: str, entry: EngineEntry) -> BuildRecord:
        """Returns the record of an engine in the index, checked against the index.

        Raises:
            RepositoryError: It is missing or was modified.
        """
        return self.listed.parse(model, entry, self.listed.read(model, entry))

    def index_bytes(self, key: str) -> bytes | None:
        """Returns the bytes of ``index.json`` or ``index/<model>.json``, None if it is missing."""
        return self._trusted.read(key) if self._trusted else self._files.get(key)

    def read(self, key: str, kind: type[R]) -> R | None:
        """Returns the record at a key, None if there is none.

        Raises:
            RepositoryError: The object is not a valid record of this kind.
        """
        return self._files.read(key, kind)

    def _add(self, key: str, record: Record, blobs: Iterable[Blob]) -> None:
        for blob in blobs:
            self.blobs.require(blob, key)
        self.store.put(key, record.to_json(), if_absent=True)


def _in_order(attestations: Iterable[Attestation | None]) -> list[Attestation]:
    """Sorts attestations by the times that they state and that may be signed, not by their names.

    Whoever can write to the store can copy an old verdict to a name that sorts after the last one.
    """
    each = {one.short: one for one in attestations if one is not None}
    return sorted(each.values(), key=lambda one: one.time)
