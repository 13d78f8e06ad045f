"""The index, which clients read and the catalog shows; made from records and attestations."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)
from typing_extensions import assert_never

from zoo.schema.chunks import Chunking
from zoo.schema.closed import Lenient, Unknown
from zoo.schema.corrections import FactChange, ManifestSource
from zoo.schema.intervals import times_as_fast
from zoo.schema.keys import WeightsIdentity
from zoo.schema.manifest import (
    BackboneCut,
    BatchRange,
    CatalogText,
    Id,
    Preprocess,
    StatedPreprocess,
    sides,
)
from zoo.schema.measurements import Cost, MachineDescription
from zoo.schema.omitted import OmitsDefaults
from zoo.schema.precisions import AnyPrecision
from zoo.schema.records import (
    Advice,
    Blob,
    CandidateSignature,
    FailureStage,
    Kind,
    PrecisionStatus,
    Record,
    Status,
)
from zoo.schema.targets import Toolchain
from zoo.util.digest import Sha256, sha256_bytes
from zoo.util.shown import Shown


class _Numbers(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)


def _interval(extra: dict[str, object] | None, name: str) -> tuple[float, float] | None:
    """Returns an interval that a newer version stated; it is no field, so that bytes stay."""
    value = (extra or {}).get(name)
    if isinstance(value, (list, tuple)) and len(value) == 2:
        low, high = value
        if isinstance(low, (int, float)) and isinstance(high, (int, float)):
            return float(low), float(high)
    return None


def _reasons(rows: object, field: str) -> tuple[tuple[int, str], ...]:
    """Returns the batch sizes of ``not_measured``, each with its reason; it is no field either."""
    return tuple(
        (row["batch"], row[field])
        for row in (rows if isinstance(rows, (list, tuple)) else ())
        if isinstance(row, dict)
        and isinstance(row.get("batch"), int)
        and isinstance(row.get(field), str)
    )


class VerifiedBatch(_Numbers):
    """How far an engine's features are from PyTorch's at one batch size.

    Attributes:
        batch: Batch size.
        worst_cosine: The lowest of any image.
        worst_relative_error: The largest of any image, ``|y - r| / |r|``.
    """

    batch: int
    worst_cosine: float
    worst_relative_error: float
    worst_distance_error: float | None = None
    neighbours: float | None = None


class ProbeSummary(_Numbers):
    """Accuracies of a linear probe on labelled photos, from 0 to 1.

    Attributes:
        photos: Number of photos.
        pytorch: Accuracy on PyTorch's features.
        engine: Accuracy on the engine's features.
    """

    photos: int
    pytorch: float
    engine: float

    @property
    def words(self) -> str:
        """The accuracies as text."""
        return (
            f"linear probe on {self.photos} labelled photos: {self.engine:.1%} right, "
            f"{self.pytorch:.1%} on PyTorch's features"
        )


class VerificationSummary(_Numbers):
    """The numbers of an engine's latest verification, and the machine that ran it.

    Attributes:
        batches: Numbers per batch size.
        probe: Result of the linear probe, if a maintainer supplied labelled photos.
        machine: The machine.
        key: Key of the verification's inputs; None in old indexes.
    """

    batches: tuple[VerifiedBatch, ...]
    probe: ProbeSummary | None = None
    machine: MachineDescription = MachineDescription()
    key: str | None = None


class TimedBatch(_Numbers):
    """The speed of an engine at one batch size.

    Attributes:
        batch: Batch size.
        latency_ms: Median latency in ms.
        images_per_second: Throughput at that latency.
    """

    batch: int
    latency_ms: float
    images_per_second: float

    @property
    def interval_ms(self) -> tuple[float, float] | None:
        """Interval that encloses the true median with 95%; None in old indexes."""
        return _interval(self.model_extra, "interval_ms")


class BenchmarkSummary(_Numbers):
    """The numbers of an engine's latest benchmark, and the machine that ran it."""

    batches: tuple[TimedBatch, ...]
    machine: MachineDescription = MachineDescription()


class ComparedBatch(_Numbers):
    """The speed of an engine and of PyTorch at one batch size.

    Attributes:
        batch: Batch size.
        engine_ms: Median latency of the engine in ms.
        pytorch_ms: Median latency of PyTorch in ms: eager or, if it was benchmarked and is faster,
            compiled.
    """

    batch: int
    engine_ms: float
    pytorch_ms: float

    @property
    def ratio(self) -> float | None:
        """PyTorch's latency over the engine's; None if either took no time."""
        stated = (self.model_extra or {}).get("ratio")
        if isinstance(stated, (int, float)):
            return float(stated)
        return (
            self.pytorch_ms / self.engine_ms if min(self.engine_ms, self.pytorch_ms) > 0 else None
        )

    @property
    def ratio_words(self) -> str:
        """How many times as fast the engine is, in words."""
        if self.ratio is None:
            return "not measured"
        return times_as_fast(self.ratio, self.ratio_interval)

    @property
    def ratio_interval(self) -> tuple[float, float] | None:
        """Encloses PyTorch's latency over the engine's with 95%; None in old indexes."""
        return _interval(self.model_extra, "ratio_interval")

    @property
    def is_slower(self) -> bool:
        """Whether PyTorch is faster: by the whole interval, where it is known."""
        if self.ratio_interval is not None:
            return self.ratio_interval[1] < 1
        return self.engine_ms > self.pytorch_ms


class ComparisonSummary(_Numbers):
    """An engine's latest benchmark against PyTorch, and the machine that ran it.

    Attributes:
        batches: Numbers per batch size.
        pytorch: How PyTorch ran: version, precision, eager or compiled.
        machine: The machine.
    """

    batches: tuple[ComparedBatch, ...]
    pytorch: str = ""
    machine: MachineDescription = MachineDescription()

    @property
    def not_measured(self) -> tuple[tuple[int | None, str], ...]:
        """Batch sizes that were too noisy, and why."""
        return _reasons((self.model_extra or {}).get("not_measured"), "reason")

    @property
    def slower_at(self) -> tuple[int, ...]:
        """Batch sizes at which PyTorch is faster."""
        return tuple(row.batch for row in self.batches if row.is_slower)


class EngineEntry(OmitsDefaults, Record):
    """An engine in the index.

    Attributes:
        record: Key of its build record.
        record_file: That record's bytes; the index's signature covers them.
        superseded: When a newer engine replaced it, ISO 8601 in UTC; None while it is current.
        documents: LICENSE and NOTICE that replace those of its record, which state facts that were
            corrected since; not in the JSON if the record's are right.
        attested: First 32 digits of the digests of the attestations that it states; not in the JSON
            if none of them is signed by a builder.
        chunks: List of the chunks that the engine is also stored as
            (:mod:`zoo.schema.chunks`); not in the JSON if it is stored whole only.
        chunks_only: Whether it is not stored whole; not in the JSON if it is.
    """

    omitted: ClassVar[frozenset[str]] = frozenset(
        {"attested", "chunks", "chunks_only", "documents"}
    )

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
    documents: dict[str, Blob] = Field(default={})
    attested: tuple[str, ...] = ()
    chunks: Blob | None = None
    chunks_only: bool = False

    @property
    def unmeasured_times(self) -> tuple[tuple[int, str], ...]:
        """Batch sizes that were too noisy to time at the last verification, and why."""
        stated = (self.verification.model_extra or {}) if self.verification else {}
        return _reasons(stated.get("not_measured"), "not_measured")

    @property
    def unmeasured_ratios(self) -> tuple[tuple[int | None, str], ...]:
        """Batch sizes without a ratio to PyTorch, and why; None for all of them."""
        if self.comparison is not None:
            return self.comparison.not_measured
        stated = (self.verification.model_extra or {}) if self.verification else {}
        reason = stated.get("not_compared")
        return ((None, reason),) if isinstance(reason, str) else ()


class DisabledCell(BaseModel):
    """Targets that a model has no engine for, and why.

    Attributes:
        targets: Their labels.
        precision: The precision of the missing engine.
        reason: Why there is none.
        record: Key of the inputs of the failed attempt.
        stage: What failed: the ``export``, which can't meet the tolerance, or the ``build``, whose
            engine missed the tolerance or which failed in two nights; unknown if a later version
            of this package wrote it.
    """

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    targets: tuple[str, ...]
    precision: AnyPrecision
    reason: str
    record: Sha256
    stage: Annotated[FailureStage | Unknown, Lenient(FailureStage)] = FailureStage.EXPORT

    @property
    def replaces_engines(self) -> bool:
        """Whether published engines of these targets leave if they miss the same tolerance.

        So it is if no ONNX meets the tolerance; a failed build replaces no engine.
        """
        if isinstance(self.stage, Unknown):
            return False
        match self.stage:
            case FailureStage.EXPORT:
                return True
            case FailureStage.BUILD | FailureStage.VERIFY:
                return False
            case _:
                assert_never(self.stage)


class OutdoneEngine(BaseModel):
    """A verified engine that is not given out, because the published one is closer to PyTorch.

    Both are made for the same purpose: their inputs differ only in what makes an engine better or
    worse, such as the calibration photos.

    Attributes:
        targets: Labels of the targets that it would have served.
        record: Key of its build record.
        engine: Digest of its bytes.
        verdict: Key of the verification that was compared.
        published: Key of the build record of the engine that stays.
        reason: The numbers of both.
    """

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    targets: tuple[str, ...]
    record: Sha256
    engine: Sha256
    verdict: Sha256
    published: Sha256
    reason: str


class OwnFloor(BaseModel):
    """How a model's tolerance for a precision is looser than the zoo's default, and why."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    looser: tuple[str, ...]
    reason: str


class ModelCard(OmitsDefaults, Record):
    """A model's description in the index.

    Attributes:
        deviations: Facts that differ from what timm or the hub states, and why; not in the JSON if
            there are none.
    """

    omitted: ClassVar[frozenset[str]] = frozenset({"deviations"})

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
    deviations: dict[str, str] = Field(default={})

    @property
    def facts(self) -> dict[str, str]:
        """The facts about the model that are no inputs of its engines, by name."""
        return {"licence": self.licence, "origin": self.origin, "title": self.catalog.title}


class ModelIndex(ModelCard):
    """``index/<model>.json``: a model's card, its engines and its disabled cells.

    Attributes:
        corrected: Corrections of the card's licence, origin and title, oldest first. The card is
            right; build records state what was known at the build, and the ``documents`` of
            engines replace theirs.
        outdone: Verified engines that did not replace a published one; not in the JSON if there are
            none.
        onnx_chunks: Lists of the chunks of its ONNX exports, by their digests; not in the JSON if
            they are stored whole.
        proposals: When each builder proposed what was signed last, by the ID of its key: what it
            proposed earlier is not signed again. Not in the JSON if no candidate was signed by a
            builder.
    """

    omitted = ModelCard.omitted | {"corrected", "onnx_chunks", "outdone", "proposals"}

    corrected: tuple[FactChange, ...] = ()
    outdone: tuple[OutdoneEngine, ...] = ()
    engines: tuple[EngineEntry, ...]
    disabled: tuple[DisabledCell, ...] = ()
    onnx_chunks: dict[Sha256, Blob] = Field(default={})
    proposals: dict[str, str] = Field(default={})

    @property
    def current(self) -> tuple[EngineEntry, ...]:
        """Its engines without the superseded ones."""
        return tuple(engine for engine in self.engines if engine.superseded is None)

    @property
    def card(self) -> ModelCard:
        """The model's description."""
        others = {"engines", "disabled", "corrected", "onnx_chunks", "outdone", "proposals"}
        return ModelCard.model_validate(self.model_dump(exclude=others))


class Candidate(OmitsDefaults, Record):
    """A builder's proposal for the index of a model; invisible to clients until it is signed.

    Attributes:
        card: The model.
        weights: The weights in its manifest; engines of other weights leave the index. None if the
            manifest was not read; then no engine leaves.
        backbone: The cut in its manifest.
        records: Keys of build records that are current for the targets they serve.
        disabled: Targets without an engine, and why.
        proposed: When, ISO 8601 in UTC; if several are waiting, the newest takes precedence.
        source: The manifest that the card was made from; None if it was made from the index.
        signature: That of the builder that proposes it; None if the repository registers none.
    """

    omitted: ClassVar[frozenset[str]] = frozenset({"signature", "source"})

    card: ModelCard
    weights: WeightsIdentity | None = None
    backbone: BackboneCut | None = None
    records: tuple[Sha256, ...] = ()
    disabled: tuple[DisabledCell, ...] = ()
    proposed: str = ""
    source: ManifestSource | None = None
    signature: CandidateSignature | None = None

    @property
    def name(self) -> str:
        """File name: ``<time>-<digest>.json``; sorts by time."""
        return f"{self.proposed.replace(':', '')}-{sha256_bytes(self.to_json())[:16]}.json"


class IndexRow(Shown, OmitsDefaults):
    """A model in ``index.json``: what ``zoo list`` needs.

    Attributes:
        input_size: Height of the input in pixels, and its width unless there is ``input_width``.
        input_width: Its width if it is not square. Not part of ``input_size``, which is a number to
            earlier versions of this package.
        targets: Status of the newest engine of each target.
        index: The file ``index/<model>.json``.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")
    omitted: ClassVar[frozenset[str]] = frozenset({"input_width"})

    model: Id
    family: str
    feature_dim: int
    input_size: int
    input_width: int | None = None
    targets: dict[str, Status]
    index: Blob

    @property
    def pixels(self) -> str:
        """The input size as text."""
        width = self.input_width
        return str(self.input_size) if width is None else f"{self.input_size}x{width}"

    @property
    def engines(self) -> str:
        """The targets as text, with the status of those that are not verified."""
        return ", ".join(
            label if status == "verified" else f"{label} ({status})"
            for label, status in sorted(self.targets.items())
        )

    def _facts(self) -> dict[str, str]:
        return {
            "model": self.model,
            "family": self.family,
            "features": f"{self.feature_dim:,}",
            "pixels": self.pixels,
            "engines": self.engines,
        }


class Index(OmitsDefaults, Record):
    """``index.json``: every model of a repository.

    Attributes:
        kind: Whether the weights are trained or seeded.
        models: The models.
        chunks: How the publisher stores engines; not in the JSON if whole.
    """

    omitted: ClassVar[frozenset[str]] = frozenset({"chunks"})

    kind: Kind
    models: tuple[IndexRow, ...]
    chunks: Annotated[Chunking | Unknown, Lenient(Chunking)] = Chunking.OFF


def index_row(model: ModelIndex, data: bytes) -> IndexRow:
    """Returns the row in ``index.json`` of a model whose index is ``data``."""
    height, width = sides(model.preprocess.input_size)
    return IndexRow(
        model=model.model,
        family=model.family,
        feature_dim=model.feature_dim,
        input_size=height,
        input_width=width if width != height else None,
        targets={
            label: engine.status
            for engine in model.engines
            if engine.superseded is None
            for label in engine.targets
        },
        index=Blob(sha256=sha256_bytes(data), size=len(data)),
    )
