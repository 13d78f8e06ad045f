"""Measurements: what runs stated, as records hold it.

A measurement is read leniently and written as it was read: the key of an attestation covers every
byte of it, and other versions of this package measure other things.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_serializer,
    model_validator,
)
from typing_extensions import Self


class Measurement(BaseModel):
    """Base of what was measured.

    A field that is absent, or whose value has an unexpected type, has its default; when it is
    serialised, it is absent or has that value again, as do fields that this version doesn't know.
    """

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    _stated: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, dict):
            return handler(value)
        try:
            model = handler(value)
        except ValidationError as error:
            wrong = {problem["loc"][0] for problem in error.errors(include_url=False)}
            model = handler({name: part for name, part in value.items() if name not in wrong})
        model._stated = dict(value)
        return model

    @model_serializer(mode="plain")
    def _write(self) -> dict[str, Any]:
        return self._stated

    def states(self, name: str) -> bool:
        """Whether a field is present, whatever its value."""
        return name in self._stated

    @property
    def empty(self) -> bool:
        """Whether no field is present."""
        return not self._stated

    def but(self, **changed: object) -> Self:
        """Returns the same measurement with fields changed or added."""
        return type(self).model_validate({**self._stated, **changed})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Returns a copy; changed fields are serialised too."""
        return self.but(**update) if update else super().model_copy(deep=deep)


class Gpu(Measurement):
    """A GPU, as its driver describes it.

    Attributes:
        name: Product name.
        compute_capability: Such as ``8.6``.
        driver: Version.
        memory_mib: Memory in MiB, as text.
    """

    name: str | None = None
    compute_capability: str | None = None
    driver: str | None = None
    memory_mib: str | None = None


class MachineDescription(Measurement):
    """The machine that measured.

    Attributes:
        cpu: Product name of the processor.
        cores: How many cores the process could use.
        memory_gib: Memory in GiB.
        system: Operating system and architecture.
        python: Version.
        gpu: The GPU in use; None without one.
        image: Container image that it ran in; None outside of one.
    """

    cpu: str | None = None
    cores: int | None = None
    memory_gib: float | None = None
    system: str | None = None
    python: str | None = None
    gpu: Gpu | None = None
    image: str | None = None

    @property
    def gpu_name(self) -> str | None:
        """Product name of its GPU; None without one."""
        return self.gpu.name if self.gpu else None


class Cost(Measurement):
    """What a job cost.

    Attributes:
        seconds: Of the export or build.
        peak_memory: Of the worker process, bytes.
        proof_seconds: Of verification and benchmark together.
    """

    seconds: float | None = None
    peak_memory: int | None = None
    proof_seconds: float | None = None


class CalibrationImages(Measurement):
    """The images that a precision below fp32 was measured and tried on.

    Attributes:
        source: ``shipped``, or a maintainer's folder.
        name: Of the set.
        photos: How many photos.
        crops: How many crops of them.
        sha256: Digests of the photos.
        distinct: How many are no near-duplicates, not flat and not noise; None if all of them are.
        duplicates: How many are near-duplicates of others.
        flat: How many are flat pictures, or noise.
    """

    source: str | None = None
    name: str | None = None
    photos: int | None = None
    crops: int | None = None
    sha256: tuple[str, ...] = ()
    distinct: int | None = None
    duplicates: int | None = None
    flat: int | None = None


class GraphSummary(Measurement):
    """The types of an ONNX graph.

    Attributes:
        nodes: Type of the output to number of nodes.
        weights: Type to number of elements.
        casts: How many nodes only convert.
    """

    nodes: dict[str, int] = {}
    weights: dict[str, int] = {}
    casts: int | None = None


class EdgeNumbers(Measurement):
    """How far the features of a flat picture or of noise are from PyTorch's, at worst.

    Attributes:
        finite: Whether every feature is finite.
        error: ``|y - r|`` over the larger of ``|r|`` and the median length of the golden photos'
            features; absent if PyTorch's features are not known or these are not finite.
    """

    finite: bool | None = None
    error: float | None = None


class FusionCheck(Measurement):
    """A network with fused branches compared with the same as it was trained, in PyTorch.

    Attributes:
        worst_cosine: Of the features of any golden photo.
        worst_relative_error: Of any golden photo, ``|y - r| / |r|``.
        parameters_before: Parameters of the network as trained.
        parameters: Parameters of the fused one.
    """

    worst_cosine: float | None = None
    worst_relative_error: float | None = None
    parameters_before: int | None = None
    parameters: int | None = None


class OnnxCheck(Measurement):
    """An exported ONNX compared with PyTorch on golden photos.

    Attributes:
        runtime: What ran the ONNX.
        batches: Batch sizes.
        worst_cosine: Of any row.
        worst_relative_error: Of any row, ``|y - r| / |r|``.
        graph: Types of the graph, below fp32.
        edges: Name of an edge picture (flat, or noise) to its numbers; absent in old records.
        fusion: The fused network compared with the one that was trained; absent without branches
            to fuse, and below fp32.
    """

    runtime: str | None = None
    batches: tuple[int, ...] = ()
    worst_cosine: float = float("nan")
    worst_relative_error: float = float("nan")
    graph: GraphSummary | None = None
    edges: dict[str, EdgeNumbers] = {}
    fusion: FusionCheck | None = None


class PhotoNumbers(Measurement):
    """How far the features of one golden photo are from PyTorch's, at worst.

    Attributes:
        cosine: Cosine of the angle between them.
        relative_error: ``|y - r| / |r|``.
        distance_error: ``|y - r|`` over the distance from ``r`` to the nearest other photo.
    """

    cosine: float | None = None
    relative_error: float | None = None
    distance_error: float | None = None


class BatchNumbers(Measurement):
    """How far an engine's features are from PyTorch's at one batch size.

    Attributes:
        batch: Images at once.
        finite: Whether every feature is finite and their shape is PyTorch's.
        shape: Shape of the features, where it is not PyTorch's.
        rows_not_finite: How many rows hold NaN or infinity, where some do.
        worst_cosine: Of any row.
        median_cosine: Of the rows.
        worst_relative_error: Of any row, ``|y - r| / |r|``.
        worst_distance_error: Of any row, ``|y - r|`` over the distance from ``r`` to the nearest
            other photo.
        worst_row: Index of the row with the worst cosine.
        lost_rows: How many rows are nearer to another photo's features than to their own.
        neighbours: Share of a row's nearest other photos that stay among its nearest, the mean.
        photos: Index in the golden file to the numbers of that photo.
        edges: Name of an edge picture (flat, or noise) to its numbers; absent in old records.
    """

    batch: int | None = None
    finite: bool | None = None
    shape: tuple[int, ...] | None = None
    rows_not_finite: int | None = None
    worst_cosine: float | None = None
    median_cosine: float | None = None
    worst_relative_error: float | None = None
    worst_distance_error: float | None = None
    worst_row: int | None = None
    lost_rows: int | None = None
    neighbours: float | None = None
    photos: dict[str, PhotoNumbers] = {}
    edges: dict[str, EdgeNumbers] = {}


class Trial(BatchNumbers):
    """A network below fp32 compared with PyTorch on calibration images.

    Attributes:
        what: What was tried, in words.
        passed: Whether it meets the tolerance.
        misses: The misses, in words.
    """

    what: str = ""
    passed: bool = False
    misses: tuple[str, ...] = ()


class BatchTimes(Measurement):
    """How fast an engine is at one batch size.

    Attributes:
        batch: Images at once.
        runs: How many were timed.
        latency_ms: Median, milliseconds.
        latency_ms_min: The least, milliseconds.
        images_per_second: Of the median.
        mad_ms: Median absolute deviation, milliseconds; absent in old records.
        interval_ms: Encloses the true median with 95%, by order statistics; absent in old records.
        load: Share of the cores that other processes used; absent where it is not known.
        not_measured: Why the times are absent: the machine was too busy or they vary too much.
        measured: How a GPU was timed, in words.
        call_ms: Median from numpy to numpy, on a GPU.
        enqueued_ms: Median without a CUDA graph, on a GPU.
        profile: Index of the optimisation profile in use.
        profiles: Index of each optimisation profile that takes the batch to its milliseconds.
    """

    batch: int | None = None
    runs: int | None = None
    latency_ms: float | None = None
    latency_ms_min: float | None = None
    images_per_second: float | None = None
    mad_ms: float | None = None
    interval_ms: tuple[float, float] | None = None
    load: float | None = None
    not_measured: str | None = None
    measured: str | None = None
    call_ms: float | None = None
    enqueued_ms: float | None = None
    profile: int | None = None
    profiles: dict[str, float] = {}


class ProbeNumbers(Measurement):
    """A linear probe on an engine's features beside one on PyTorch's: accuracies, of 1.

    Attributes:
        photos: How many labelled photos.
        pytorch: Accuracy on PyTorch's features.
        engine: Accuracy on the engine's.
        fall: How much less that is.
        standard_error: Of the fall.
        allowed: The largest fall that is tolerated.
        name: Of the photos.
        sha256: Digest of the photos.
        folds: Of the cross-validation.
    """

    photos: int = 0
    pytorch: float = float("nan")
    engine: float = float("nan")
    fall: float = float("nan")
    standard_error: float = float("nan")
    allowed: float = float("nan")
    name: str | None = None
    sha256: str | None = None
    folds: int | None = None


class EngineHeader(Measurement):
    """The header of a TensorRT engine.

    Attributes:
        kind: ``trt`` or ``rtx``.
        version: Version of the runtime that built it, ``1.7.1.116``.
        length: Bytes of the engine; None if the header does not state it.
        archs: Architectures that it contains code for; None if the header does not state them.
    """

    kind: str | None = None
    version: str | None = None
    length: int | None = None
    archs: tuple[str, ...] | None = None


class LayerSummary(Measurement):
    """The layers of a TensorRT engine.

    Attributes:
        profiles: Number of optimisation profiles that have layers of their own.
        layers: Layer type to number of layers.
        weights: Precision to number of weights, over the layers that state it and all profiles.
        weighted: Precision to number of those layers.
        tensors: Precision to number of layer inputs; 8.6 does not state it for dynamic shapes.
        silent: Names of layers that hold weights but do not state them (Myelin's fused nodes).
    """

    profiles: int = 1
    layers: dict[str, int] = {}
    weights: dict[str, int] = {}
    weighted: dict[str, int] = {}
    tensors: dict[str, int] = {}
    silent: tuple[str, ...] = ()


class EngineFacts(Measurement):
    """What a backend read from an engine.

    Attributes:
        header: The header of a TensorRT engine.
        input: Shape of an image of its input, channels first, of TensorRT.
        device_memory: Bytes of device memory by optimisation profile, of TensorRT.
        inspector: Its layers, as TensorRT's inspector describes them.
        precision: Evidence of the engine's precision, in words.
        timing_cache: Whether TensorRT accepted the timing cache, in words.
        weights: Type to number of elements, of ONNX Runtime.
        operators: Operator type to number of nodes, of ONNX Runtime.
        int8_operators: The same, of those that compute in int8.
    """

    header: EngineHeader | None = None
    input: tuple[int, ...] | None = None
    device_memory: tuple[int, ...] | None = None
    inspector: LayerSummary | None = None
    precision: str | None = None
    timing_cache: str | None = None
    weights: dict[str, int] | None = None
    operators: dict[str, int] | None = None
    int8_operators: dict[str, int] | None = None


class AttestationBody(Measurement):
    """What an attestation states. This one is of a kind from a later version.

    Attributes:
        reason: Why, for people.
    """

    reason: str | None = None


class VerifiedBody(AttestationBody):
    """The numbers of a verification.

    Attributes:
        batches: By batch size.
        tolerance: What every row must meet.
        probe: A linear probe, where a maintainer gave labelled photos.
        not_measured: Batch sizes that were too noisy to time, and why; absent without any.
        not_compared: Why no ratio to PyTorch was measured; absent if one was.
    """

    batches: tuple[BatchNumbers, ...] = ()
    tolerance: dict[str, float] | None = None
    probe: ProbeNumbers | None = None
    not_measured: tuple[BatchTimes, ...] = ()
    not_compared: str | None = None


class WithdrawnBody(VerifiedBody):
    """Why an engine was withdrawn, with the numbers of the verification that it failed.

    Attributes:
        by: Who withdrew it by hand; None where a verification did.
    """

    by: str | None = None


class ReinstatedBody(AttestationBody):
    """Why an engine that a person withdrew is given out again.

    Attributes:
        by: Who reinstated it.
    """

    by: str | None = None


class BenchmarkedBody(AttestationBody):
    """The times of an engine.

    Attributes:
        batches: By batch size.
    """

    batches: tuple[BatchTimes, ...] = ()


class Unmeasured(Measurement):
    """Why there is no ratio at one batch size.

    Attributes:
        batch: Images at once.
        reason: Why, in words.
    """

    batch: int | None = None
    reason: str | None = None


class ComparedTimes(Measurement):
    """An engine's time beside PyTorch's at one batch size.

    Attributes:
        batch: Images at once.
        engine_ms: Median of the engine, milliseconds.
        pytorch_ms: The best median of PyTorch, milliseconds.
        ratio: PyTorch's time over the engine's, the median of rounds in turns if there were any.
        ratio_interval: Encloses the true ratio with 95%; absent in old records.
    """

    batch: int | None = None
    engine_ms: float | None = None
    pytorch_ms: float | None = None
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None


class ComparedBody(AttestationBody):
    """An engine's times beside PyTorch's on the same kind of machine.

    Attributes:
        batches: By batch size.
        pytorch: How PyTorch ran, in words.
        not_measured: Batch sizes that were too noisy, and why; absent without any.
    """

    batches: tuple[ComparedTimes, ...] = ()
    pytorch: str | None = None
    not_measured: tuple[Unmeasured, ...] = ()


class PendingBody(AttestationBody):
    """Why an engine has not been run."""
