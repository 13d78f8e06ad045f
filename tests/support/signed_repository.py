"""A signed repository of made-up engines: small, quick, and whole in every other way."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner

from builders.publish.candidate_check import check_candidate
from builders.publish.index import TIME
from builders.publish.keys import Expiry, KeyRing, load_builder, make_keys
from builders.publish.provenance_file import PROVENANCE
from builders.publish.publisher import Check, Published, Publisher, Rerun
from builders.publish.signatures import sign, sign_candidate
from builders.publish.tuf_metadata import SignedMetadata
from support import records
from zoo.client.client import Client
from zoo.client.trust import SignedIndex
from zoo.repository.repository import Repository
from zoo.schema.chunks import Chunking
from zoo.schema.corrections import ManifestSource
from zoo.schema.floors import floors
from zoo.schema.index import Candidate, Index, ModelIndex, index_row
from zoo.schema.keys import BuildInputs
from zoo.schema.later import LaterBuildRecord, LaterExportRecord
from zoo.schema.layout import export_key, record_key
from zoo.schema.licences import LICENCE_FILE, NOTICE_FILE, licence_text, notice_text
from zoo.schema.precisions import Precision
from zoo.schema.records import Attestation, Blob, BuildRecord, Kind
from zoo.stores import LocalStore, ObjectStore, open_store
from zoo.util.digest import sha256_bytes, sha256_json

ROW = records.decided_batch(worst_cosine=0.999999)
"""What a verdict says of a batch that keeps every floor."""

TOLERANCE = floors()[Precision.FP32].model_dump()

LABEL = "cpu-ort1.32-fp32"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def no_passphrase(what: str) -> str:
    raise AssertionError(f"asked for {what}")


def run_nothing(repository: Repository, made: ModelIndex, previous: ModelIndex | None) -> None:
    """Runs no engine: most are made up."""


@dataclass
class Signed:
    """A repository, its keys, and a clock that stands where a test puts it."""

    folder: Path
    store: ObjectStore = field(init=False)
    now: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    expiry: Expiry = field(default_factory=Expiry)
    bins: int = 2
    check: Check = check_candidate
    rerun: Rerun = run_nothing
    url: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.store = open_store(self.url) if self.url else LocalStore(self.folder / "store")
        self.repository = Repository(self.store)
        self.repository.claim(Kind.RELEASE)
        self.ring = make_keys(
            self.folder / "keys", None, ask=no_passphrase, expiry=self.expiry, bins=self.bins
        )
        self.sign_as_builder()

    def build(self, model: str = "m", content: bytes = b"engine", **changes: Any) -> BuildRecord:
        """Puts an engine there, as a builder does; nobody sees it yet."""
        inputs = changes.pop("inputs", None) or self.build_inputs(model, content)
        engine = self.blob(content)
        values: dict[str, Any] = {
            "inputs": inputs,
            "engine": engine,
            "golden": self.blob(b"golden"),
            "files": self.papers(inputs, engine),
            "feature_dim": 8,
        }
        record = records.build_record(**{**values, **changes})
        self.attest(engine, file=sha256_bytes(record.to_json()))
        self.repository.add_record(record)
        return record

    def build_inputs(self, model: str, content: bytes) -> BuildInputs:
        """What an engine is made from."""
        onnx = sha256_json(content.hex())
        return records.build_inputs(model=model, onnx=onnx)

    def papers(self, inputs: BuildInputs, engine: Blob) -> dict[str, Blob]:
        """What lies beside an engine."""
        definition = {"internalParameters": {"buildKey": inputs.key}}
        statement = {
            "subject": [{"digest": {"sha256": engine.sha256}}],
            "predicate": {"buildDefinition": definition},
        }
        return {
            LICENCE_FILE: self.blob(licence_text("apache-2.0").encode()),
            NOTICE_FILE: self.blob(notice_of(inputs.model)),
            PROVENANCE: self.blob(json.dumps(statement).encode()),
        }

    def blob(self, content: bytes) -> Blob:
        path = self.folder / "file"
        path.write_bytes(content)
        return self.repository.blobs.add(path)

    def attest(self, engine: Blob, **changes: Any) -> None:
        body = {"batches": [ROW], "tolerance": TOLERANCE}
        values = {"engine": engine.sha256, "machine": records.machine(), "body": body}
        file = changes.pop("file", None)
        self.repository.attest(records.attestation(**{**values, **changes}), record=file)

    def sign_as_builder(self) -> None:
        """From now on signs what the repository object stores."""
        self.repository.sign = self.sign
        self.repository.candidates.sign = self.sign_candidate

    def sign(self, attestation: Attestation, record: str | None) -> Attestation:
        """Signs as the repository's first builder."""
        return sign(attestation, self._builder(), record)

    def sign_candidate(self, candidate: Candidate) -> Candidate:
        """Signs as the repository's first builder."""
        return sign_candidate(candidate, self._builder())

    def _builder(self) -> CryptoSigner:
        return load_builder(self.ring.builder_file, no_passphrase)

    def propose(
        self, *proposed: BuildRecord, source: ManifestSource | None = None, **card: Any
    ) -> str:
        """Proposes engines of one model; returns where the candidate lies."""
        values: dict[str, Any] = {
            "model": proposed[0].inputs.model if proposed else "m",
            "licence": "apache-2.0",
            "weights": "file w",
            "feature_dim": 8,
        }
        candidate = records.candidate(
            records.model_card(**{**values, **card}),
            proposed,
            proposed=datetime.now(timezone.utc).strftime(TIME),
            source=source,
        )
        return self.repository.candidates.propose(candidate)

    def publish(self, *, refresh: bool = False, chunking: Chunking | None = None) -> Published:
        metadata = SignedMetadata(self.store, self.ring, lambda: self.now)
        publisher = Publisher(
            self.repository, metadata, check=self.check, rerun=self.rerun, now=lambda: self.now
        )
        return publisher.run(refresh=refresh, chunking=chunking)

    def release(self, model: str = "m", content: bytes = b"engine") -> BuildRecord:
        """Builds, proposes, signs."""
        record = self.build(model, content)
        self.propose(record)
        assert not self.publish().refused
        return record

    def client(self, name: str = "home", **options: Any) -> Client:
        """A client with a folder of its own, which trusts these keys."""
        home = self.folder / name
        store = options.pop("store", self.store)
        root = options.pop("root", None) or self.ring.root_file.read_bytes()
        signed = SignedIndex(store, home / "verified", root, **options)
        return Client(Repository(store, signed), home / "cache", signed)

    def pulled(self, client: Client, model: str = "m") -> bytes:
        """What a client gets of a model, byte for byte."""
        (entry, *_) = client.model(model).current
        return client.pull(model, entry).engine.read_bytes()

    def path(self, key: str) -> Path:
        return self.folder / "store" / key

    def find(self, pattern: str) -> Path:
        (found,) = (self.folder / "store").glob(pattern)
        return found

    def blob_path(self, record: BuildRecord) -> Path:
        """Where a record's engine lies."""
        return self.find(f"blobs/sha256/*/{record.engine.sha256}")

    def later(self, **time: float) -> None:
        self.now += timedelta(**time)


def notice_of(model: str, licence: str = "apache-2.0", **card: Any) -> bytes:
    """The NOTICE of an engine of the card that is proposed unless a test says otherwise."""
    facts = {"title": "M", "origin": "https://example.org/m", "weights": "file w", **card}
    return notice_text(model=model, licence=licence, **facts).encode()


def other_ring(folder: Path) -> KeyRing:
    return make_keys(folder, None, ask=no_passphrase, bins=2)


def release_of_later_version(signed: Signed, model: str = "m") -> LaterBuildRecord:
    """Signs an engine as a later version does: its precision and placing are unknown to this one.

    Its ONNX, golden file and engine are stored; the model must have an engine in the index.
    """
    export = records.export_record(onnx=signed.blob(b"fp4 onnx"), golden=signed.blob(b"golden"))
    stated = json.loads(export.to_json())
    lowering = {"calibration": "c", "tolerance": {}, "placing": "another runtime"}
    stated["inputs"] |= {"model": model, "precision": "fp4", "lowering": lowering}
    later_export = LaterExportRecord.model_validate(stated)
    signed.store.put(export_key(model, later_export.inputs.key), json.dumps(stated).encode())
    built = records.build_record(engine=signed.blob(b"fp4 engine"), golden=export.golden)
    stated = json.loads(built.to_json()) | {"export_key": later_export.inputs.key}
    stated["inputs"] |= {"model": model, "precision": "fp4"}
    stated["targets"] = [LABEL.replace("fp32", "fp4")]
    later = LaterBuildRecord.model_validate(stated)
    data = json.dumps(stated).encode()
    signed.store.put(record_key(model, later.key), data)

    metadata = SignedMetadata(signed.store, signed.ring, lambda: signed.now)
    assert metadata.load()
    written = metadata.read(f"index/{model}.json")
    assert written is not None
    index = json.loads(written)
    index["engines"].append(
        index["engines"][0]
        | {"record": later.key, "record_file": {"sha256": sha256_bytes(data), "size": len(data)}}
        | {"engine": later.engine.model_dump(), "precision": "fp4", "targets": stated["targets"]}
    )
    other = json.dumps(index).encode()
    row = index_row(ModelIndex.model_validate_json(other), other)
    metadata.publish(
        {
            f"index/{model}.json": other,
            "index.json": Index(kind="release", models=(row,)).to_json(),
        }
    )
    return later


def publish_many(signed: Signed, models: int) -> None:
    """Signs an index of models of 20 engines, each with as many numbers as a GPU engine has."""
    row = {"worst_cosine": 0.999912345, "worst_relative_error": 0.00123, "neighbours": 0.98765}
    numbers = [{"batch": batch, **row} for batch in (1, 3, 8, 64, 128, 256)]
    times = [
        {"batch": batch, "latency_ms": 1.234567, "images_per_second": 12345.678}
        for batch in (1, 8, 64, 128, 256)
    ]
    engines = [
        records.engine_entry(f"{arch}-rtx1.7-{precision}", verification={"batches": numbers},
               benchmark={"batches": times})
        for arch in ("sm75", "sm80", "sm86", "sm89", "sm120")
        for precision in ("fp32", "bf16", "fp16", "int8")
    ]  # fmt: skip
    files, rows = {}, []
    for number in range(models):
        one = records.model_index(*engines, model=f"model_{number}")
        files[f"index/{one.model}.json"] = one.to_json()
        rows.append(index_row(one, files[f"index/{one.model}.json"]))
    files["index.json"] = Index(kind="release", models=tuple(rows)).to_json()
    metadata = SignedMetadata(signed.store, signed.ring)
    metadata.start()
    metadata.publish(files)
