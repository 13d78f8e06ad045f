"""A repository: blobs, records, attestations and the index, in an object store.

Blobs go first, the record that names them last and once: a kill at any instant leaves either the
whole engine or nothing that anybody sees. What is seen is what the signed index names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zoo.repository.blobs import Blobs
from zoo.repository.candidates import Candidates
from zoo.repository.index_files import IndexFiles
from zoo.repository.record_files import LARGEST_RECORD
from zoo.schema.layout import (
    blob_key,
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
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError


class Repository(Blobs, Candidates, IndexFiles):
    """Reads and writes a repository.

    Args:
        store: Where it lies.
        trusted: Reads the index as it is signed; without it, the index is what the store says,
            which is good enough to see what there is to do, and not to load an engine.
    """

    # Kind

    def kind(self) -> Kind | None:
        """Returns what the repository is for, None when there is no repository yet."""
        info = self.read("repository.json", RepositoryInfo)
        return None if info is None else info.kind

    def claim(self, kind: Kind) -> None:
        """Makes the repository, or checks that it is of this kind.

        Raises:
            RepositoryError: It is of the other kind.
        """
        self.store.put("repository.json", RepositoryInfo(kind=kind).to_json(), if_absent=True)
        if (found := self.kind()) != kind:
            raise RepositoryError(
                f"{self.store.url} is a {found} repository and this is a {kind}",
                hint="dry runs (seeded weights) and real engines never share a repository; "
                "give another STORE=",
            )

    # Records

    def state(self, model: str, recipe: str) -> StateRecord | None:
        """Returns the stored state of seeded weights."""
        return self.read(state_key(model, recipe), StateRecord)

    def add_state(self, record: StateRecord) -> None:
        """Writes a state record, once; its blob must be here."""
        self._add(state_key(record.model, record.recipe), record, record.blobs)

    def export(self, model: str, key: str) -> ExportRecord | None:
        """Returns the export of that key."""
        return self.read(export_key(model, key), ExportRecord)

    def add_export(self, record: ExportRecord) -> None:
        """Writes an export record, once; its blobs must be here."""
        key = export_key(record.inputs.model, record.inputs.key)
        self._add(key, record, record.blobs)

    def failed_export(self, model: str, key: str) -> FailureRecord | None:
        """Returns why there is no export of that key, None when it was not found to be so."""
        if found := self.read(failed_export_key(model, key), FailureRecord):
            return found
        old = self.read(disabled_key(model, key), OldDisabled)
        return old.failure() if old else None

    def add_failed_export(self, record: FailureRecord) -> None:
        """Writes why there is no export, once."""
        self._add(failed_export_key(record.inputs.model, record.inputs.key), record, ())

    def record(self, model: str, key: str) -> BuildRecord | None:
        """Returns the build record of that key.

        Raises:
            RepositoryError: What lies there is no record, or one of another key.
        """
        record = self.read(record_key(model, key), BuildRecord)
        if record is not None and record.key != key:
            raise RepositoryError(
                f"{self.store.url}: {record_key(model, key)} has inputs of another key: it was "
                "changed",
                hint="remove it; the next make zoo builds the engine again",
            )
        return record

    def add_record(self, record: BuildRecord) -> None:
        """Writes a build record, once; its blobs must be here."""
        key = record_key(record.inputs.model, record.key)
        self._add(key, record, record.blobs)

    def record_file(self, model: str, key: str) -> Blob:
        """Returns hash and size of a build record's own bytes."""
        data = self.store.get(record_key(model, key), limit=LARGEST_RECORD)
        return Blob(sha256=sha256_bytes(data), size=len(data))

    def records(self, model: str) -> list[BuildRecord]:
        """Returns every build record of a model."""
        keys = [entry.key for entry in self.store.list(f"records/{model}/")]
        return [record for key in keys if (record := self.read(key, BuildRecord))]

    def attest(self, found: Attestation) -> None:
        """Appends an attestation."""
        self.store.put(f"attestations/{found.engine}/{found.name}", found.to_json(), if_absent=True)

    def attestations(self, engine: str) -> list[Attestation]:
        """Returns what was attested about an engine, oldest first."""
        listed = self.store.list(f"attestations/{engine}/")
        return [found for entry in listed if (found := self.read(entry.key, Attestation))]

    def timing_cache(self, device: str, toolchain: Toolchain) -> TimingCacheRecord | None:
        """Returns the newest timing cache of a GPU and a toolchain."""
        return self.read(timing_cache_key(device, toolchain), TimingCacheRecord)

    def put_timing_cache(self, record: TimingCacheRecord) -> None:
        """Writes a timing cache's record over the one before; its blob must be here."""
        if not self.has_blob(record.cache):
            raise RepositoryError(f"timing cache: its blob {record.cache.sha256} is not stored")
        self.store.put(timing_cache_key(record.device, record.toolchain), record.to_json())

    # Repair

    def named_blobs(self, prefix: str = "") -> Iterator[tuple[str, Blob]]:
        """Yields the key of every record under a prefix, with each blob that it names."""
        for folder, kind in _NAMING.items():
            for entry in self.store.list(folder) if folder.startswith(prefix) else ():
                record = self.read(entry.key, kind)
                yield from ((entry.key, blob) for blob in (record.blobs if record else ()))

    def forget(self, key: str, blob: Blob) -> None:
        """Removes a blob and the record that names it, so that both are made again."""
        self.store.delete(key)
        self.store.delete(blob_key(blob.sha256))

    def _add(self, key: str, record: Record, blobs: Iterable[Blob]) -> None:
        for blob in blobs:
            if not self.has_blob(blob):
                raise RepositoryError(f"{key}: its blob {blob.sha256} is not stored")
        self.store.put(key, record.to_json(), if_absent=True)


_NAMING: dict[str, type[StateRecord | ExportRecord | BuildRecord | TimingCacheRecord]] = {
    "states/": StateRecord,
    "exports/": ExportRecord,
    "records/": BuildRecord,
    "timing-caches/": TimingCacheRecord,
}
