"""A repository: blobs, records, attestations and the index, in an object store.

This module alone knows the layout. ::

    repository.json                            which kind this is: release, or dry-run
    blobs/sha256/ab/abcd…                      immutable bytes
    states/<model>/<recipe>.json               seeded weights, by their recipe
    exports/<model>/<export-key>.json          ONNX and golden, by what went in
    disabled/<model>/<export-key>.json         why there is no such ONNX
    records/<model>/<build-key>.json           engines, by what went in
    attestations/<engine>/<time>-<kind>-….json what was found out about an engine
    timing-caches/<device>-<toolchain>.json    the newest timing cache of a GPU and a TensorRT
    index/<model>.json, index.json             what clients read; written last

Blobs go first, the record that names them last and once: a kill at any instant leaves either the
whole engine or nothing that anybody sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from zoo.digest import sha256_bytes, sha256_file
from zoo.errors import RepositoryError
from zoo.index import Index, IndexRow, ModelIndex
from zoo.record import (
    Attestation,
    Blob,
    BuildRecord,
    DisabledRecord,
    ExportRecord,
    Kind,
    Record,
    RepositoryInfo,
    StateRecord,
    TimingCacheRecord,
)
from zoo.stores import ObjectStore
from zoo.target import Toolchain

R = TypeVar("R", bound=Record)


class Repository:
    """Reads and writes a repository.

    Args:
        store: Where it lies.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    # Kind

    def kind(self) -> Kind | None:
        """Returns what the repository is for, None when there is no repository yet."""
        info = self._read("repository.json", RepositoryInfo)
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
        self.store.put_file(_blob_key(blob.sha256), path)
        return blob

    def has_blob(self, blob: Blob) -> bool:
        """Whether the blob is here, whole."""
        return self.store.size(_blob_key(blob.sha256)) == blob.size

    def blob_path(self, blob: Blob) -> Path | None:
        """Returns where a blob can be read in place, None where the store is remote."""
        return self.store.local_path(_blob_key(blob.sha256))

    def fetch_blob(self, blob: Blob, path: Path) -> None:
        """Copies a blob to ``path`` and checks it; a blob that fails never gets that name.

        Raises:
            RepositoryError: The blob is missing, or its bytes are not what its name says.
        """
        partial = path.with_name(path.name + ".part")
        try:
            self.store.fetch(_blob_key(blob.sha256), partial)
            if partial.stat().st_size != blob.size or sha256_file(partial) != blob.sha256:
                raise RepositoryError(
                    f"{self.store.url}: blob {blob.sha256} is damaged: its bytes do not have "
                    "that hash",
                    hint="the download was discarded; tell the repository's maintainer",
                )
            partial.replace(path)
        except KeyError as error:
            raise RepositoryError(f"{self.store.url}: blob {blob.sha256} is missing") from error
        finally:
            partial.unlink(missing_ok=True)

    # Records

    def state(self, model: str, recipe: str) -> StateRecord | None:
        """Returns the stored state of seeded weights."""
        return self._read(f"states/{model}/{recipe}.json", StateRecord)

    def add_state(self, record: StateRecord) -> None:
        """Writes a state record, once; its blob must be here."""
        self._add(f"states/{record.model}/{record.recipe}.json", record, [record.state])

    def export(self, model: str, key: str) -> ExportRecord | None:
        """Returns the export of that key."""
        return self._read(f"exports/{model}/{key}.json", ExportRecord)

    def add_export(self, record: ExportRecord) -> None:
        """Writes an export record, once; its blobs must be here."""
        key = f"exports/{record.inputs.model}/{record.inputs.key}.json"
        self._add(key, record, [record.onnx, record.golden])

    def disabled(self, model: str, key: str) -> DisabledRecord | None:
        """Returns why there is no export of that key, None when it was not found to be so."""
        return self._read(f"disabled/{model}/{key}.json", DisabledRecord)

    def add_disabled(self, record: DisabledRecord) -> None:
        """Writes why there is no export, once."""
        key = f"disabled/{record.inputs.model}/{record.inputs.key}.json"
        self._add(key, record, [])

    def record(self, model: str, key: str) -> BuildRecord | None:
        """Returns the build record of that key."""
        return self._read(f"records/{model}/{key}.json", BuildRecord)

    def add_record(self, record: BuildRecord) -> None:
        """Writes a build record, once; its blobs must be here."""
        key = f"records/{record.inputs.model}/{record.key}.json"
        self._add(key, record, [record.engine, record.golden, *record.files.values()])

    def records(self, model: str) -> list[BuildRecord]:
        """Returns every build record of a model."""
        keys = self.store.list(f"records/{model}/")
        return [record for key in keys if (record := self._read(key, BuildRecord))]

    def attest(self, attestation: Attestation) -> None:
        """Appends an attestation."""
        key = f"attestations/{attestation.engine}/{attestation.name}"
        self.store.put(key, attestation.to_json(), if_absent=True)

    def attestations(self, engine: str) -> list[Attestation]:
        """Returns what was attested about an engine, oldest first."""
        keys = self.store.list(f"attestations/{engine}/")
        return [found for key in keys if (found := self._read(key, Attestation))]

    def timing_cache(self, device: str, toolchain: Toolchain) -> TimingCacheRecord | None:
        """Returns the newest timing cache of a GPU and a toolchain."""
        return self._read(_timing_cache_key(device, toolchain), TimingCacheRecord)

    def put_timing_cache(self, record: TimingCacheRecord) -> None:
        """Writes a timing cache's record over the one before; its blob must be here."""
        if not self.has_blob(record.cache):
            raise RepositoryError(f"timing cache: its blob {record.cache.sha256} is not stored")
        self.store.put(_timing_cache_key(record.device, record.toolchain), record.to_json())

    # Repair

    def named_blobs(self) -> Iterator[tuple[str, Blob]]:
        """Yields the key of every record with each blob that it names."""
        for key in self.store.list("states/"):
            if state := self._read(key, StateRecord):
                yield key, state.state
        for key in self.store.list("exports/"):
            if export := self._read(key, ExportRecord):
                yield from ((key, blob) for blob in (export.onnx, export.golden))
        for key in self.store.list("records/"):
            if record := self._read(key, BuildRecord):
                yield from ((key, blob) for blob in (record.engine, record.golden))
                yield from ((key, blob) for blob in record.files.values())
        for key in self.store.list("timing-caches/"):
            if cache := self._read(key, TimingCacheRecord):
                yield key, cache.cache

    def damage(self, blob: Blob, scratch: Path) -> str | None:
        """Says what is wrong with a blob, None when its bytes have its hash.

        Args:
            blob: Which one.
            scratch: Folder for a copy, where the store is remote.
        """
        path = self.blob_path(blob)
        if self.store.size(_blob_key(blob.sha256)) is None:
            return "missing"
        if path is None:
            path = scratch / blob.sha256
            self.store.fetch(_blob_key(blob.sha256), path)
        return None if sha256_file(path) == blob.sha256 else "damaged"

    def forget(self, key: str, blob: Blob) -> None:
        """Removes a blob and the record that names it, so that both are made again."""
        self.store.delete(key)
        self.store.delete(_blob_key(blob.sha256))

    # Index

    def write_index(self, kind: Kind, models: Iterable[ModelIndex]) -> Index:
        """Writes ``index/<model>.json`` for each model, then ``index.json``.

        Models that have an index already and are not given stay as they are, so an ``index.json``
        that was lost comes back. One writer at a time.
        """
        with self.store.lock("index"):
            current = self.index()
            rows = {row.model: row for row in current.models} if current else self._index_rows()
            for model in models:
                data = model.to_json()
                if self._get(f"index/{model.model}.json") != data:
                    self.store.put(f"index/{model.model}.json", data)
                rows[model.model] = _index_row(model, data)
            index = Index(kind=kind, models=tuple(rows[name] for name in sorted(rows)))
            if index != current:
                self.store.put("index.json", index.to_json())
        return index

    def _index_rows(self) -> dict[str, IndexRow]:
        rows = {}
        for key in self.store.list("index/"):
            if model := self._read(key, ModelIndex):
                rows[model.model] = _index_row(model, self.store.get(key))
        return rows

    def index(self) -> Index | None:
        """Returns ``index.json``, None when nothing has been published."""
        return self._read("index.json", Index)

    def model_index(self, model: str) -> ModelIndex | None:
        """Returns ``index/<model>.json``, None when nothing of the model has been published."""
        return self._read(f"index/{model}.json", ModelIndex)

    def checked_model_index(self, row: IndexRow) -> ModelIndex:
        """Returns ``index/<model>.json`` when it has the hash that ``index.json`` gives.

        Raises:
            RepositoryError: It is missing or was changed.
        """
        key = f"index/{row.model}.json"
        data = self._get(key)
        model = self._read(key, ModelIndex)
        if data is None or model is None:
            raise RepositoryError(f"{self.store.url}: index.json names {key}, which is missing")
        if sha256_bytes(data) != row.index.sha256:
            raise RepositoryError(
                f"{self.store.url}: {key} does not have the hash that index.json gives",
                hint="if something is being published right now, try again; else it was changed",
            )
        return model

    def model_indexes(self) -> Iterator[ModelIndex]:
        """Yields the index of every model that ``index.json`` names."""
        index = self.index()
        for row in index.models if index else ():
            if found := self.model_index(row.model):
                yield found

    def _get(self, key: str) -> bytes | None:
        try:
            return self.store.get(key)
        except KeyError:
            return None

    def _read(self, key: str, kind: type[R]) -> R | None:
        data = self._get(key)
        if data is None:
            return None
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise RepositoryError(
                f"{self.store.url}: {key} is not a valid {kind.__name__}: {where}: {first['msg']}",
                hint="it is damaged, or was made by another version; an index.json may be removed: "
                "the next make zoo makes it from index/",
            ) from error

    def _add(self, key: str, record: Record, blobs: list[Blob]) -> None:
        for blob in blobs:
            if not self.has_blob(blob):
                raise RepositoryError(f"{key}: its blob {blob.sha256} is not stored")
        self.store.put(key, record.to_json(), if_absent=True)


def _index_row(model: ModelIndex, data: bytes) -> IndexRow:
    return IndexRow(
        model=model.model,
        family=model.family,
        feature_dim=model.feature_dim,
        input_size=model.preprocess.input_size,
        targets={label: engine.status for engine in model.engines for label in engine.targets},
        index=Blob(sha256=sha256_bytes(data), size=len(data)),
    )


def _timing_cache_key(device: str, toolchain: Toolchain) -> str:
    name = f"{device}-cuda{toolchain.cuda}-{toolchain.kind}{toolchain.version}"
    return f"timing-caches/{re.sub(r'[^A-Za-z0-9.]+', '-', name).lower()}.json"


def _blob_key(sha256: str) -> str:
    return f"blobs/sha256/{sha256[:2]}/{sha256}"
