"""A repository: blobs, records, attestations and the index, in an object store.

Blobs go first, the record that names them last and once: a kill at any instant leaves either the
whole engine or nothing that anybody sees. What is seen is what the signed index names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import ValidationError

from zoo.schema.index import Candidate, EngineEntry, Index, ModelIndex
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
from zoo.stores import ObjectStore, Progress
from zoo.util.digest import canonical_json, sha256_bytes, sha256_file
from zoo.util.errors import RepositoryError, TooLongError

R = TypeVar("R", bound=Record)

LARGEST_RECORD = 2**24
"""Bytes that a record may have: whoever can write to a store could leave one without an end."""


class IndexReader(Protocol):
    """Reads files of the index that somebody vouches for."""

    def read(self, path: str) -> bytes | None:
        """Returns ``index.json`` or ``index/<model>.json``, None when there is no such file."""
        ...


class Repository:
    """Reads and writes a repository.

    Args:
        store: Where it lies.
        trusted: Reads the index as it is signed; without it, the index is what the store says,
            which is good enough to see what there is to do, and not to load an engine.
    """

    def __init__(self, store: ObjectStore, trusted: IndexReader | None = None) -> None:
        self.store = store
        self._trusted = trusted

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

    # Blobs

    def add_blob(self, path: Path) -> Blob:
        """Stores a file as a blob. The caller gives the file up.

        Returns:
            Its hash and size.
        """
        blob = Blob(sha256=sha256_file(path), size=path.stat().st_size)
        self.store.put_file(blob_key(blob.sha256), path)
        return blob

    def has_blob(self, blob: Blob) -> bool:
        """Whether the blob is here, whole."""
        return self.store.size(blob_key(blob.sha256)) == blob.size

    def find_blob(self, sha256: str) -> Blob | None:
        """Returns the blob of a digest with the size that the store gives, None without it."""
        size = self.store.size(blob_key(sha256))
        return None if size is None else Blob(sha256=sha256, size=size)

    def blob_path(self, blob: Blob) -> Path | None:
        """Returns where a blob can be read in place, None where the store is remote."""
        return self.store.local_path(blob_key(blob.sha256))

    def fetch_blob(self, blob: Blob, path: Path, *, progress: Progress | None = None) -> None:
        """Copies a blob to ``path`` and checks it; a blob that fails never gets that name.

        What an interruption leaves, ``<path>.part``, is gone on from.

        Raises:
            RepositoryError: The blob is missing, or its bytes are not what its name says.
        """
        partial = path.with_name(path.name + ".part")
        resumed = partial.exists()
        try:
            self.store.fetch(blob_key(blob.sha256), partial, size=blob.size, progress=progress)
        except KeyError as error:
            raise RepositoryError(
                f"{self.store.url}: blob {blob.sha256} is missing",
                hint="a mirror may have been made without it; else tell the maintainers",
            ) from error
        except TooLongError:
            partial.unlink(missing_ok=True)
            raise
        if partial.stat().st_size == blob.size and sha256_file(partial) == blob.sha256:
            partial.replace(path)
            return None
        partial.unlink()
        if resumed:  # what was there before may have been the damage
            return self.fetch_blob(blob, path, progress=progress)
        raise RepositoryError(
            f"{self.store.url}: blob {blob.sha256} is damaged: its bytes do not have that hash",
            hint="the download was discarded; tell the repository's maintainer",
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

    def whole_blob(self, blob: Blob, scratch: Path) -> Path:
        """Returns a file with a blob's bytes, checked: in place, else a copy in ``scratch``.

        Raises:
            RepositoryError: It is missing or damaged.
        """
        path = self.blob_path(blob)
        if path is None:
            self.fetch_blob(blob, path := scratch / blob.sha256)
        elif damage := self.damage(blob, scratch):
            raise RepositoryError(f"{self.store.url}: blob {blob.sha256} is {damage}")
        return path

    def damage(self, blob: Blob, scratch: Path) -> str | None:
        """Says what is wrong with a blob, None when its bytes have its hash.

        Args:
            blob: Which one.
            scratch: Folder for a copy, where the store is remote.
        """
        path = self.blob_path(blob)
        size = self.store.size(blob_key(blob.sha256))
        if size is None:
            return "missing"
        if size != blob.size:
            return f"damaged: it has {size:,} bytes and not {blob.size:,}"
        if path is None:
            path = scratch / blob.sha256
            self.store.fetch(blob_key(blob.sha256), path, size=blob.size)
        return None if sha256_file(path) == blob.sha256 else "damaged"

    def forget(self, key: str, blob: Blob) -> None:
        """Removes a blob and the record that names it, so that both are made again."""
        self.store.delete(key)
        self.store.delete(blob_key(blob.sha256))

    # Candidates

    def propose(self, candidate: Candidate) -> None:
        """Writes a candidate; its records must be here."""
        model = candidate.card.model
        for key in candidate.records:
            if self.record(model, key) is None:
                raise RepositoryError(f"candidate of {model}: its record {key} is not stored")
        key = f"candidates/{model}/{candidate.name}"
        self.store.put(key, candidate.to_json(), if_absent=True)

    def candidates(self) -> list[str]:
        """Returns the keys of what builders propose, by model, the oldest first."""
        return [entry.key for entry in self.store.list("candidates/")]

    def candidate(self, key: str) -> Candidate | None:
        """Returns a candidate, None when it is gone."""
        return self.read(key, Candidate)

    def refuse(self, key: str, reason: str) -> None:
        """Puts a candidate aside, with the reason."""
        data = canonical_json({"candidate": key, "reason": reason}) + b"\n"
        self.store.put(key.replace("candidates/", "refused/", 1), data)

    # Index

    def plain_index(self) -> Index | None:
        """Returns ``index.json`` as it lies there for eyes and curl; None when it is no index."""
        try:
            return self.read("index.json", Index)
        except RepositoryError:
            return None

    def index(self) -> Index | None:
        """Returns ``index.json``, None when nothing has been published."""
        return self._parse("index.json", self._index_bytes("index.json"), Index)

    def model_index(self, model: str) -> ModelIndex | None:
        """Returns ``index/<model>.json``, None when nothing of the model has been published."""
        key = f"index/{model}.json"
        return self._parse(key, self._index_bytes(key), ModelIndex)

    def model_indexes(self) -> Iterator[ModelIndex]:
        """Yields the index of every model that ``index.json`` names."""
        index = self.index()
        for row in index.models if index else ():
            if found := self.model_index(row.model):
                yield found

    def listed_record(self, model: str, entry: EngineEntry) -> BuildRecord:
        """Returns the record of an engine of the index, when it is what the index says.

        Raises:
            RepositoryError: It is missing or was changed.
        """
        return self.parse_listed(model, entry, self.listed_bytes(model, entry))

    def listed_bytes(self, model: str, entry: EngineEntry) -> bytes:
        """Returns the bytes of that record, unchecked.

        Raises:
            RepositoryError: It is missing, or longer than the index says.
        """
        key = record_key(model, entry.record)
        try:
            return self.store.get(key, limit=entry.record_file.size)
        except KeyError as error:
            raise RepositoryError(
                f"{self.store.url}: the index names {key}, which is gone",
                hint="tell the repository's maintainer; a mirror may have been made without it",
            ) from error

    def parse_listed(self, model: str, entry: EngineEntry, data: bytes) -> BuildRecord:
        """Reads the bytes of that record.

        Raises:
            RepositoryError: They are not what the index says.
        """
        key, record = record_key(model, entry.record), None
        if sha256_bytes(data) == entry.record_file.sha256:
            record = self._parse(key, data, BuildRecord)
        if record is None or record.key != entry.record or record.engine != entry.engine:
            raise RepositoryError(
                f"{self.store.url}: {key} is not what the index says: it was changed",
                hint="nothing was loaded; tell the repository's maintainer",
            )
        return record

    def _index_bytes(self, key: str) -> bytes | None:
        return self._trusted.read(key) if self._trusted else self._get(key)

    def _get(self, key: str) -> bytes | None:
        try:
            return self.store.get(key, limit=LARGEST_RECORD)
        except KeyError:
            return None

    def read(self, key: str, kind: type[R]) -> R | None:
        """Returns the record at a key, None when there is none.

        Raises:
            RepositoryError: What lies there is no such record.
        """
        return self._parse(key, self._get(key), kind)

    def _parse(self, key: str, data: bytes | None, kind: type[R]) -> R | None:
        if data is None:
            return None
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise RepositoryError(
                f"{self.store.url}: {key} is not a valid {kind.__name__}: {where}: {first['msg']}",
                hint="it is damaged, or was made by another version",
            ) from error

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
