"""Records: what a repository knows of its blobs. Immutable JSON.

Readers keep fields that they do not know, so that an old client survives a new record.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from zoo.digest import Sha256, sha256_json
from zoo.key import BuildInputs, ExportInputs
from zoo.manifest import BatchRange, CatalogText, Preprocess, StatedPreprocess
from zoo.target import Toolchain

SCHEMA_VERSION = 1

Kind = Literal["release", "dry-run"]
"""What a repository is for: real weights, or seeded ones."""

Status = Literal["verified", "pending", "withdrawn"]
AttestationKind = Literal["verified", "benchmarked", "compared", "pending", "withdrawn"]
PrecisionStatus = Literal["proven", "unproven"]


class Record(BaseModel):
    """Base of everything that is read from a repository."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    schema_version: int = SCHEMA_VERSION

    @field_validator("schema_version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version > SCHEMA_VERSION:
            raise ValueError(
                f"{version} is newer than this version of caft-zoo reads ({SCHEMA_VERSION}): "
                "upgrade it"
            )
        return version

    def to_json(self) -> bytes:
        """Returns the record as indented JSON with a final newline, UTF-8."""
        return (self.model_dump_json(indent=1) + "\n").encode()


class Blob(BaseModel):
    """Immutable bytes, named by their hash.

    Attributes:
        sha256: Their hash.
        size: How many there are.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    sha256: Sha256
    size: int


class RepositoryInfo(Record):
    """``repository.json``: what a repository is for."""

    kind: Kind


class StateRecord(Record):
    """A stored state dict: seeded weights, which no one could make again to the byte elsewhere."""

    model: str
    recipe: str
    state: Blob


class ExportRecord(Record):
    """An export: inputs to normalised ONNX and golden.

    Attributes:
        inputs: Everything that went in; its key names the record.
        onnx: The normalised ONNX.
        golden: Photos (uint8, N x H x W x 3) and PyTorch's fp32 features (N x feature_dim), .npz.
        parameters: Number of weights in the backbone.
        largest_tensor: Elements per image of the largest activation.
        check: What the export was checked for, with numbers.
        cost: Seconds and peak memory (bytes) of the worker.
    """

    inputs: ExportInputs
    onnx: Blob
    golden: Blob
    parameters: int
    largest_tensor: int
    check: dict[str, Any]
    cost: dict[str, Any]


class TimingCacheRecord(Record):
    """The newest timing cache of a GPU and a toolchain. The one record that is written again.

    It only saves time: an engine does not depend on it, and its key does not hold it.

    Attributes:
        device: The GPU's name.
        toolchain: What timed.
        cache: The cache's bytes.
    """

    device: str
    toolchain: Toolchain
    cache: Blob


class BuildRecord(Record):
    """An engine: inputs to bytes.

    Attributes:
        inputs: Everything that went in; its key names the record.
        export_key: Key of the export that it was built from.
        targets: Labels of the targets that it serves.
        engine: The engine's bytes.
        golden: The golden file that proves it.
        files: What is kept beside the engine, by name: ``log`` of the worker, and ``inspector``,
            what TensorRT says of its layers.
        feature_dim: Width of its output.
        dry_run: Whether the weights are seeded.
        precision_status: Whether the engine was asked what it runs in.
        facts: What the backend read from the engine: header version, capabilities, inputs.
        licence: SPDX identifier of the weights.
        weights: Where the weights come from.
        cost: Seconds of the build; peak memory (bytes) of build, verification and benchmark.
        created: When, ISO 8601 in UTC.
    """

    inputs: BuildInputs
    export_key: Sha256
    targets: tuple[str, ...]
    engine: Blob
    golden: Blob
    files: dict[str, Blob] = {}
    feature_dim: int
    dry_run: bool
    precision_status: PrecisionStatus
    facts: dict[str, Any]
    licence: str
    weights: str
    cost: dict[str, Any]
    created: str

    @property
    def key(self) -> str:
        """The build key, which names the record."""
        return self.inputs.key


class Attestation(Record):
    """What was found out about an engine on one machine at one time. Appended, never edited.

    Attributes:
        kind: What is attested.
        engine: Digest of the engine.
        time: When, ISO 8601 in UTC.
        key: Key of what went into the finding, so that it is not made twice.
        machine: Where.
        body: The numbers.
    """

    kind: AttestationKind
    engine: Sha256
    time: str
    key: Sha256
    machine: dict[str, Any]
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """File name: ``<time>-<kind>-<digest>.json``; sorts by time."""
        digest = sha256_json(self.model_dump(mode="json"))
        return f"{self.time.replace(':', '')}-{self.kind}-{digest[:16]}.json"


class _Numbers(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)


class VerifiedBatch(_Numbers):
    """How far an engine's features were from PyTorch's at one batch size.

    Attributes:
        batch: Images at once.
        worst_cosine: Of any row.
        worst_relative_error: Of any row, ``|y - r| / |r|``.
    """

    batch: int
    worst_cosine: float
    worst_relative_error: float


class VerificationSummary(_Numbers):
    """The numbers of an engine's latest verdict, and the machine that found them."""

    batches: tuple[VerifiedBatch, ...]
    machine: dict[str, Any] = {}


class TimedBatch(_Numbers):
    """How fast an engine was at one batch size.

    Attributes:
        batch: Images at once.
        latency_ms: Median.
        images_per_second: Of the median.
    """

    batch: int
    latency_ms: float
    images_per_second: float


class BenchmarkSummary(_Numbers):
    """The numbers of an engine's latest benchmark, and the machine that took them."""

    batches: tuple[TimedBatch, ...]
    machine: dict[str, Any] = {}


class ComparedBatch(_Numbers):
    """An engine beside PyTorch at one batch size.

    Attributes:
        batch: Images at once.
        engine_ms: Median latency of the engine.
        pytorch_ms: The best median latency of PyTorch: eager or, where it was timed, compiled.
    """

    batch: int
    engine_ms: float
    pytorch_ms: float


class ComparisonSummary(_Numbers):
    """An engine's latest comparison with PyTorch, and the machine that made it.

    Attributes:
        batches: Numbers per batch size.
        pytorch: How PyTorch ran: its version, precision and ways.
        machine: Where.
    """

    batches: tuple[ComparedBatch, ...]
    pytorch: str = ""
    machine: dict[str, Any] = {}

    @property
    def slower_at(self) -> tuple[int, ...]:
        """Batch sizes at which PyTorch is faster."""
        return tuple(one.batch for one in self.batches if one.engine_ms > one.pytorch_ms)


class EngineEntry(Record):
    """One engine as the index shows it."""

    record: Sha256
    targets: tuple[str, ...]
    precision: str
    status: Status
    reason: str | None = None
    engine: Blob
    toolchain: Toolchain
    batch: BatchRange
    feature_dim: int
    preprocess: Preprocess
    dry_run: bool
    precision_status: PrecisionStatus
    verification: VerificationSummary | None = None
    benchmark: BenchmarkSummary | None = None
    comparison: ComparisonSummary | None = None
    cost: dict[str, Any]
    created: str


class ModelIndex(Record):
    """``index/<model>.json``: a model's card and its engines."""

    model: str
    family: str
    timm_name: str
    licence: str
    origin: str
    weights: str
    feature_dim: int
    cut: str
    preprocess: StatedPreprocess
    catalog: CatalogText
    engines: tuple[EngineEntry, ...]


class IndexRow(BaseModel):
    """A model as ``index.json`` lists it: enough for ``zoo list``."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    model: str
    family: str
    feature_dim: int
    input_size: int
    targets: dict[str, Status]
    index: Blob


class Index(Record):
    """``index.json``: every model of a repository."""

    kind: Kind
    models: tuple[IndexRow, ...]


def concerning(attestations: Iterable[Attestation], arch: str) -> list[Attestation]:
    """Returns what is said of an engine on one architecture.

    One engine may serve several. What running it on one of them showed says nothing of the others.

    Args:
        attestations: Of the engine, oldest first.
        arch: ``cpu`` or ``sm86``.
    """
    return [
        one
        for one in attestations
        if arch == "cpu" or one.kind == "pending" or _gpu_arch(one.machine) == arch
    ]


def _gpu_arch(machine: dict[str, Any]) -> str:
    capability = str(machine.get("gpu", {}).get("compute_capability", ""))
    return f"sm{capability.replace('.', '')}"


def status_of(attestations: list[Attestation]) -> tuple[Status, str | None]:
    """Says where an engine stands, from what was attested about it.

    Args:
        attestations: Of one engine, oldest first.

    Returns:
        The status, and the reason when it is not ``verified``.
    """
    status: Status = "pending"
    reason: str | None = "nothing has been attested yet"
    for attestation in attestations:
        if attestation.kind == "benchmarked" or attestation.kind == "compared":
            continue
        status = attestation.kind
        reason = None if status == "verified" else str(attestation.body.get("reason", ""))
    return status, reason
