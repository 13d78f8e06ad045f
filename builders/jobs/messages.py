"""Jobs and their results: the JSON that goes to a worker and comes back.

``worker job.json -> output directory`` is the unit of work of every executor. Inputs are blobs of
a store; outputs are files in the directory, named by ``result.json``, for the farm to publish.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    model_validator,
)
from typing_extensions import assert_never

from builders.photos.calibration import CalibrationSet
from builders.photos.labelled import LabelledSet
from zoo.schema.floors import Tolerance
from zoo.schema.keys import BuildInputs, ExportInputs, WeightsIdentity
from zoo.schema.manifest import Manifest, Preprocess
from zoo.schema.measurements import (
    BatchNumbers,
    BatchTimes,
    CalibrationImages,
    ComparedBody,
    Cost,
    EngineFacts,
    MachineDescription,
    OnnxCheck,
    ProbeNumbers,
)
from zoo.schema.records import Advice, Blob, BuildRecord, ExportRecord

RESERVED = ("job.json", "log.txt", "result.json", "quarantine.json", "work")
"""Names in a job's folder that only the farm uses."""


def _is_free(name: str) -> str:
    if name in (".", "..", *RESERVED):
        raise ValueError(f"'{name}' is not allowed as the name of a worker's file")
    return name


FileName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=200),
    AfterValidator(_is_free),
]
"""Name of a file in a worker's folder: letters, digits, ``.``, ``_`` and ``-``."""

SideFile = Literal["inspector", "tactics"]
"""Kinds of files that a worker may return to be stored with an engine."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid")


class ExportJob(_Message):
    """Exports a model's ONNX files and its golden file.

    Attributes:
        manifest: The model.
        manifest_dir: Folder of the manifest, which paths of local weights are relative to.
        weights: Identity of the weights.
        inputs: Inputs of each ONNX by the name of its form. ``fp32`` comes first; the others are
            derived from it.
        calibration: Images that lower precisions are calibrated and evaluated on.
        fp32: The fp32 export if it exists already; the job then needs no torch.
        state: The stored state of seeded weights, if any.
        store: URL of the store to read blobs from.
    """

    kind: Literal["export"] = "export"
    manifest: Manifest
    manifest_dir: str
    weights: WeightsIdentity
    inputs: dict[str, ExportInputs]
    calibration: CalibrationSet
    fp32: ExportRecord | None = None
    state: Blob | None = None
    store: str


class ReferenceJob(_Message):
    """Computes PyTorch's features of labelled photos, for a linear probe.

    Attributes:
        manifest: The model.
        manifest_dir: Folder of the manifest, which paths of local weights are relative to.
        labelled: The photos, on this machine.
        store: URL of the store to read blobs from.
    """

    kind: Literal["reference"] = "reference"
    manifest: Manifest
    manifest_dir: str
    labelled: LabelledSet
    store: str


class VerificationSpec(_Message):
    """How to verify and benchmark an engine.

    Attributes:
        golden: The golden file.
        preprocess: The model's preprocessing.
        tolerance: Tolerance that each row must meet.
        batches: Batch sizes to verify at.
        benchmark: Batch sizes to time; empty if that has been done.
        labelled: File on this machine with labelled photos at the network's input size, their
            labels and PyTorch's features, for a linear probe; None for no probe.
        reference: The model to time in PyTorch, in turns with the engine; None for no comparison.
    """

    golden: Blob
    preprocess: Preprocess
    tolerance: Tolerance
    batches: tuple[int, ...]
    benchmark: tuple[int, ...]
    labelled: str | None = None
    reference: Manifest | None = None


class _EngineMessage(_Message):
    @model_validator(mode="before")
    @classmethod
    def _read_older(cls, values: Any) -> Any:
        """Reads a job of an older version, which named the field ``prove``."""
        if isinstance(values, dict) and "prove" in values:
            values = {("verification" if k == "prove" else k): v for k, v in values.items()}
        return values


class BuildJob(_EngineMessage):
    """Builds one engine and, if this machine can run it, verifies it.

    Attributes:
        inputs: Inputs of the build.
        onnx: The ONNX.
        parameters: Number of its weights.
        verification: How to verify the engine; None if this machine can't run it.
        store: URL of the store to read blobs and timing caches from.
    """

    kind: Literal["build"] = "build"
    inputs: BuildInputs
    onnx: Blob
    parameters: int
    verification: VerificationSpec | None
    store: str


class VerifyJob(_EngineMessage):
    """Verifies an engine that was built earlier.

    Attributes:
        record: Its build record.
        verification: How to verify it.
        store: URL of the store to read blobs from.
    """

    kind: Literal["verify"] = "verify"
    record: BuildRecord
    verification: VerificationSpec
    store: str

    @property
    def inputs(self) -> BuildInputs:
        """What the engine was made from."""
        return self.record.inputs


EngineJob: TypeAlias = BuildJob | VerifyJob
"""A job that needs an engine's toolchain, and neither PyTorch nor weights."""

AnyJob: TypeAlias = ExportJob | ReferenceJob | EngineJob
"""A closed set: code that decides by the class of a job uses ``match`` with ``assert_never``."""

Job = Annotated[AnyJob, Field(discriminator="kind")]
parse_job: TypeAdapter[AnyJob] = TypeAdapter(Job, config=ConfigDict(defer_build=True))


def engine_job(job: Job) -> EngineJob | None:
    """Returns a job if it needs an engine's toolchain; None if it needs PyTorch and weights."""
    match job:
        case ExportJob() | ReferenceJob():
            return None
        case BuildJob() | VerifyJob():
            return job
        case _:
            assert_never(job)


class ExportedFile(_Message):
    """One exported ONNX, as a file of the output directory."""

    inputs: ExportInputs
    onnx: FileName
    parameters: int
    largest_tensor: int
    check: OnnxCheck
    calibration: CalibrationImages | None = None
    advice: Advice | None = None


class DisabledExport(_Message):
    """An ONNX that was not exported because it misses its tolerance."""

    inputs: ExportInputs
    reason: str
    calibration: CalibrationImages
    advice: Advice
    stricter_may_pass: bool


class ExportOutput(_Message):
    """Result of an :class:`ExportJob`.

    Attributes:
        golden: Name of the golden file; None if it existed already.
        state: Name of the file of a seeded state that this job made, if any.
        exports: The ONNX files.
        disabled: Requested forms that miss their tolerance.
        notes: What was recognised in the weights and what the export needed, in words.
        cost: Seconds and peak memory (bytes).
    """

    kind: Literal["export"] = "export"
    golden: FileName | None
    state: FileName | None
    exports: tuple[ExportedFile, ...]
    disabled: tuple[DisabledExport, ...] = ()
    notes: tuple[str, ...] = ()
    cost: Cost


class ReferenceOutput(_Message):
    """Result of a :class:`ReferenceJob`.

    Attributes:
        file: Name of the ``.npz`` file with ``images``, ``labels`` and PyTorch's ``features``.
        cost: Seconds and peak memory (bytes).
    """

    kind: Literal["reference"] = "reference"
    file: FileName
    cost: Cost


class Verification(_Message):
    """Result of verifying an engine.

    Attributes:
        passed: Whether every row of every batch meets the tolerance.
        reason: The limits that were missed, in words.
        batches: Numbers per batch size.
        labelled: Name of the file of the engine's features of labelled photos, if requested.
        probe: Result of a linear probe on those features, once the farm has computed it.
    """

    passed: bool
    reason: str | None
    batches: tuple[BatchNumbers, ...]
    labelled: FileName | None = None
    probe: ProbeNumbers | None = None


class BuildOutput(_Message):
    """Result of a :class:`BuildJob` or :class:`VerifyJob`.

    Attributes:
        engine: File of the engine; None if the job only verified one.
        files: Kind to name of each file that is stored with the engine.
        timing_cache: File of the timing cache after the build.
        facts: Facts that the backend read from the engine.
        precision_proven: Whether the engine's precision was read from the engine itself.
        verification: Result of verifying it; None if this machine could not run the engine.
        benchmark: Latency and throughput per batch size.
        comparison: The engine's speed in turns with PyTorch's; None without any ratio.
        not_compared: Why there is no ratio.
        machine: The machine that did all this.
        cost: Seconds and peak memory (bytes) of each stage.
    """

    kind: Literal["build"] = "build"
    engine: FileName | None
    files: dict[SideFile, FileName] = {}
    timing_cache: FileName | None = None
    facts: EngineFacts
    precision_proven: bool
    verification: Verification | None
    benchmark: tuple[BatchTimes, ...]
    comparison: ComparedBody | None = None
    not_compared: str | None = None
    machine: MachineDescription
    cost: Cost


class Failure(_Message):
    """Result of a job that raised.

    Attributes:
        error: Class name of the error.
        message: Its message.
        hint: Its hint.
    """

    kind: Literal["failure"] = "failure"
    error: str
    message: str
    hint: str | None


Result = Annotated[
    ExportOutput | ReferenceOutput | BuildOutput | Failure, Field(discriminator="kind")
]
parse_result: TypeAdapter[ExportOutput | ReferenceOutput | BuildOutput | Failure] = TypeAdapter(
    Result, config=ConfigDict(defer_build=True)
)
