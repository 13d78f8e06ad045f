"""The index: what clients read and the catalog shows. Made from records and attestations."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from zoo.schema.keys import WeightsIdentity
from zoo.schema.manifest import (
    BackboneCut,
    BatchRange,
    CatalogText,
    Id,
    Preprocess,
    StatedPreprocess,
)
from zoo.schema.measurements import Cost, MachineDescription
from zoo.schema.precisions import AnyPrecision
from zoo.schema.records import Advice, Blob, Kind, PrecisionStatus, Record, Status
from zoo.schema.targets import Toolchain
from zoo.util.digest import Sha256, sha256_bytes


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


class ProbeSummary(_Numbers):
    """What a linear probe on labelled photos shows: accuracies, of 1.

    Attributes:
        photos: How many there are.
        pytorch: On PyTorch's features.
        engine: On the engine's.
    """

    photos: int
    pytorch: float
    engine: float

    @property
    def words(self) -> str:
        """The same in words."""
        return (
            f"linear probe on {self.photos} labelled photos: {self.engine:.1%} right, "
            f"{self.pytorch:.1%} on PyTorch's features"
        )


class VerificationSummary(_Numbers):
    """The numbers of an engine's latest verdict, and the machine that found them.

    Attributes:
        batches: Numbers per batch size.
        probe: What a linear probe shows, where a maintainer gave labelled photos.
        machine: Where.
        key: Key of what went into the verdict; None in an index from before it was written.
    """

    batches: tuple[VerifiedBatch, ...]
    probe: ProbeSummary | None = None
    machine: MachineDescription = MachineDescription()
    key: str | None = None


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
    machine: MachineDescription = MachineDescription()


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
    machine: MachineDescription = MachineDescription()

    @property
    def slower_at(self) -> tuple[int, ...]:
        """Batch sizes at which PyTorch is faster."""
        return tuple(one.batch for one in self.batches if one.engine_ms > one.pytorch_ms)


class EngineEntry(Record):
    """One engine as the index shows it.

    Attributes:
        record: Key of its build record.
        record_file: That record's bytes: signing the index signs them.
        superseded: When a newer engine took its targets, ISO 8601 in UTC; None while it is current.
    """

    record: Sha256
    record_file: Blob
    superseded: str | None = None
    targets: tuple[str, ...]
    precision: AnyPrecision
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
    cost: Cost
    created: str


class DisabledCell(BaseModel):
    """Targets that a model has no engine for, and why.

    Attributes:
        targets: Their labels.
        precision: Of the engine that there is none of.
        reason: Why.
        record: Key of what it was tried with.
        stage: What does not go: the ``export``, whose floors rule it out, or the ``build``, whose
            engine missed them, or which failed in two nights.
    """

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    targets: tuple[str, ...]
    precision: AnyPrecision
    reason: str
    record: Sha256
    stage: Literal["export", "build"] = "export"


class OwnFloor(BaseModel):
    """Where a model's engines of a precision may be worse than the zoo's floors, and why."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    looser: tuple[str, ...]
    reason: str


class ModelCard(Record):
    """What the index says of a model itself."""

    model: Id
    family: str
    timm_name: str
    licence: str
    origin: str
    weights: str
    feature_dim: int
    cut: str
    preprocess: StatedPreprocess
    catalog: CatalogText
    own_floors: dict[str, OwnFloor] = Field(default={})


class ModelIndex(ModelCard):
    """``index/<model>.json``: a model's card, its engines, and what it has none of."""

    engines: tuple[EngineEntry, ...]
    disabled: tuple[DisabledCell, ...] = ()

    @property
    def current(self) -> tuple[EngineEntry, ...]:
        """Its engines, those aside that newer ones took the place of."""
        return tuple(engine for engine in self.engines if engine.superseded is None)

    @property
    def card(self) -> ModelCard:
        """What it says of the model itself."""
        return ModelCard.model_validate(self.model_dump(exclude={"engines", "disabled"}))


class Candidate(Record):
    """What a builder proposes for the index of a model; nobody sees it until it is signed.

    Attributes:
        card: The model.
        weights: Which weights its manifest means now; engines of others leave the index. None
            where the manifest was not looked at, and nothing leaves.
        backbone: The cut that its manifest means now.
        records: Keys of build records that are current for the targets they serve.
        disabled: Targets that can't be had, and why.
        proposed: When, ISO 8601 in UTC: of several that wait, the newest has the last word.
    """

    card: ModelCard
    weights: WeightsIdentity | None = None
    backbone: BackboneCut | None = None
    records: tuple[Sha256, ...] = ()
    disabled: tuple[DisabledCell, ...] = ()
    proposed: str = ""

    @property
    def name(self) -> str:
        """File name: ``<time>-<digest>.json``; sorts by time."""
        return f"{self.proposed.replace(':', '')}-{sha256_bytes(self.to_json())[:16]}.json"


class IndexRow(BaseModel):
    """A model as ``index.json`` lists it: enough for ``zoo list``."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    model: Id
    family: str
    feature_dim: int
    input_size: int
    targets: dict[str, Status]
    index: Blob


class Index(Record):
    """``index.json``: every model of a repository."""

    kind: Kind
    models: tuple[IndexRow, ...]


def index_row(model: ModelIndex, data: bytes) -> IndexRow:
    """Returns how ``index.json`` lists a model whose index is ``data``."""
    return IndexRow(
        model=model.model,
        family=model.family,
        feature_dim=model.feature_dim,
        input_size=model.preprocess.input_size,
        targets={
            label: engine.status
            for engine in model.engines
            if engine.superseded is None
            for label in engine.targets
        },
        index=Blob(sha256=sha256_bytes(data), size=len(data)),
    )
