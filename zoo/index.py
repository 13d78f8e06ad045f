"""The index: what clients read and the catalog shows. Made from records and attestations."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from zoo.digest import Sha256
from zoo.manifest import BatchRange, CatalogText, Preprocess, StatedPreprocess
from zoo.record import Advice, Blob, Kind, PrecisionStatus, Record, Status
from zoo.target import Toolchain


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
    worst_distance_error: float | None = None
    neighbours: float | None = None


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
    advice: Advice | None = None
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


class DisabledCell(BaseModel):
    """Targets that a model has no engine for, and why."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    targets: tuple[str, ...]
    precision: str
    reason: str
    record: Sha256


class OwnFloor(BaseModel):
    """Where a model's engines of a precision may be worse than the zoo's floors, and why."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    looser: tuple[str, ...]
    reason: str


class ModelIndex(Record):
    """``index/<model>.json``: a model's card, its engines, and what it has none of."""

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
    disabled: tuple[DisabledCell, ...] = ()
    own_floors: dict[str, OwnFloor] = Field(default={})


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
