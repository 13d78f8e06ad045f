"""Jobs and their results: the JSON that goes to a worker and comes back.

``worker job.json -> output directory`` is the unit of work of every executor. Inputs are blobs of
a store; outputs are files in the directory, named by ``result.json``, for the farm to publish.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter
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
    Cost,
    EngineFacts,
    MachineDescription,
    OnnxCheck,
    ProbeNumbers,
)
from zoo.schema.records import Advice, Blob, BuildRecord, ExportRecord

RESERVED = ("job.json", "log.txt", "result.json", "quarantine.json", "work")
"""Names in a job's folder that are the farm's."""


def _is_free(name: str) -> str:
    if name in (".", "..", *RESERVED):
        raise ValueError(f"'{name}' is no name for a worker's file")
    return name


FileName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=200),
    AfterValidator(_is_free),
]
"""A plain name of a file in a worker's folder: letters, digits, ``.``, ``_`` and ``-``."""

SideFile = Literal["inspector"]
"""What a worker may return to be kept beside an engine."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExportJob(_Message):
    """Make the ONNX files of a model, and its golden.

    Attributes:
        manifest: The model.
        manifest_dir: Folder of the manifest, against which local weights are resolved.
        weights: Which weights.
        inputs: What each ONNX is made from, by the name of its form. ``fp32`` comes first; the
            others are derived from it.
        calibration: The images that those are measured and tried on.
        fp32: The fp32 export, when it is there already: then no torch is needed.
        state: The stored state of seeded weights, when there is one.
        store: Where blobs are read.
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
    """Compute PyTorch's features of labelled photos, for a linear probe.

    Attributes:
        manifest: The model.
        manifest_dir: Folder of the manifest, against which local weights are resolved.
        labelled: The photos, on this machine.
        store: Where blobs are read.
    """

    kind: Literal["reference"] = "reference"
    manifest: Manifest
    manifest_dir: str
    labelled: LabelledSet
    store: str


class Prove(_Message):
    """How an engine is proven on a machine that can run it.

    Attributes:
        golden: The golden file.
        preprocess: The model's preprocessing.
        tolerance: What each row must keep.
        batches: Batch sizes to verify at.
        benchmark: Batch sizes to time, empty when that has been done.
        labelled: File on this machine with labelled photos at the network's size, their labels and
            PyTorch's features, for a linear probe; None for none.
    """

    golden: Blob
    preprocess: Preprocess
    tolerance: Tolerance
    batches: tuple[int, ...]
    benchmark: tuple[int, ...]
    labelled: str | None = None


class BuildJob(_Message):
    """Build one engine and, where this machine can run it, prove it.

    Attributes:
        inputs: What the engine is made from.
        onnx: The ONNX.
        parameters: Number of its weights.
        prove: How to prove it; None where this machine can't run it.
        store: Where blobs and timing caches are read.
    """

    kind: Literal["build"] = "build"
    inputs: BuildInputs
    onnx: Blob
    parameters: int
    prove: Prove | None
    store: str


class VerifyJob(_Message):
    """Prove an engine that is built.

    Attributes:
        record: Its build record.
        prove: How to prove it.
        store: Where blobs are read.
    """

    kind: Literal["verify"] = "verify"
    record: BuildRecord
    prove: Prove
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
parse_job: TypeAdapter[AnyJob] = TypeAdapter(Job)


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
    """An ONNX that there is none of, because it would not keep its floors."""

    inputs: ExportInputs
    reason: str
    calibration: CalibrationImages
    advice: Advice
    stricter_may_pass: bool


class ExportOutput(_Message):
    """Result of an :class:`ExportJob`.

    Attributes:
        golden: File, or None when the golden was there already.
        state: File of a seeded state made by this job.
        exports: The ONNX files.
        disabled: What was asked for and can't be had.
        cost: Seconds and peak memory (bytes).
    """

    kind: Literal["export"] = "export"
    golden: FileName | None
    state: FileName | None
    exports: tuple[ExportedFile, ...]
    disabled: tuple[DisabledExport, ...] = ()
    cost: Cost


class ReferenceOutput(_Message):
    """Result of a :class:`ReferenceJob`.

    Attributes:
        file: ``images``, ``labels`` and PyTorch's ``features``, as arrays.
        cost: Seconds and peak memory (bytes).
    """

    kind: Literal["reference"] = "reference"
    file: FileName
    cost: Cost


class Verification(_Message):
    """Verdict on an engine.

    Attributes:
        passed: Whether every row of every batch keeps its tolerance.
        reason: The worst miss, in words.
        batches: Numbers per batch size.
        labelled: File of the engine's features of labelled photos, None where none were asked for.
        probe: What a linear probe on them shows, when the farm has looked.
    """

    passed: bool
    reason: str | None
    batches: tuple[BatchNumbers, ...]
    labelled: FileName | None = None
    probe: ProbeNumbers | None = None


class BuildOutput(_Message):
    """Result of a :class:`BuildJob` or :class:`VerifyJob`.

    Attributes:
        engine: File of the engine; None when the job only verified one.
        files: Name to file of what is kept beside the engine.
        timing_cache: File of the timing cache as the build left it.
        facts: What the backend read from the engine.
        precision_proven: Whether the engine was asked what precision it runs in.
        verification: Verdict, None where the engine could not be run.
        benchmark: Latency and throughput per batch size.
        machine: Where all this was.
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
    machine: MachineDescription
    cost: Cost


class Failure(_Message):
    """Result of a job that raised.

    Attributes:
        error: Class name of the error.
        message: What is wrong.
        hint: What to do next.
    """

    kind: Literal["failure"] = "failure"
    error: str
    message: str
    hint: str | None


Result = Annotated[
    ExportOutput | ReferenceOutput | BuildOutput | Failure, Field(discriminator="kind")
]
parse_result: TypeAdapter[ExportOutput | ReferenceOutput | BuildOutput | Failure] = TypeAdapter(
    Result
)
