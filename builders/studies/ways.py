"""Ways: how a model gets a lower precision, ours and others'; one literal table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from builders.precision import lower
from builders.precision.graph import name_nodes
from builders.precision.measure import measure
from builders.precision.qdq import place, quantise
from builders.precision.ranges import activation_scales
from builders.studies.modelopt import ModelOpt, ModelOptRange
from builders.studies.result import Studied
from builders.studies.subject import Subject

if TYPE_CHECKING:
    import onnx

Way = Callable[[Subject, ModelOpt], "tuple[onnx.ModelProto, str]"]
"""Makes the network and says what to know of it. Raises PrecisionError or RunError where there is
none."""


def _ours_fp16(subject: Subject, modelopt: ModelOpt) -> tuple[onnx.ModelProto, str]:
    made, advice = lower(
        subject.fp32(), "fp16", subject.calibration(), subject.manifest.kept_by("fp16")
    )
    islands = [f"{count} {reason}" for reason, count in advice.islands.items()]
    kept = [f"{len(advice.kept)} kept higher"] if advice.kept else []
    return made, ", ".join(islands + kept)


def _half(subject: Subject, modelopt: ModelOpt) -> tuple[onnx.ModelProto, str]:
    import onnx

    return onnx.load(subject.folder / "half.onnx"), ""


def _autocast(subject: Subject, modelopt: ModelOpt) -> tuple[onnx.ModelProto, str]:
    folder, images = subject.folder, subject.calibration().judged
    return modelopt.autocast(folder / "fp32.onnx", folder / "autocast.onnx", images), ""


def _ours_int8(subject: Subject, modelopt: ModelOpt) -> tuple[onnx.ModelProto, str]:
    made, advice = lower(
        subject.fp32(), "int8", subject.calibration(), subject.manifest.kept_by("int8")
    )
    kept = f", {len(advice.kept)} kept higher" if advice.kept else ""
    return made, f"ranges by {advice.ranges}{kept}"


def _placed(subject: Subject, modelopt: ModelOpt) -> tuple[onnx.ModelProto, str]:
    """Our placement alone: nothing is tried, nothing is kept higher."""
    model = subject.fp32()
    name_nodes(model)
    placement = place(model, "tensorrt")
    images = subject.calibration().all
    batches = (images[at : at + 1] for at in range(len(images)))
    measured = measure(model, batches, placement.activations)
    return quantise(model, placement, activation_scales(measured, "max")), ""


def _modelopt(
    ranges: ModelOptRange, subject: Subject, modelopt: ModelOpt
) -> tuple[onnx.ModelProto, str]:
    folder, images = subject.folder, subject.calibration().all
    made = folder / f"modelopt-{ranges}.onnx"
    return modelopt.quantise(folder / "fp32.onnx", made, images, ranges), ""


WAYS: dict[Studied, dict[str, Way]] = {
    "fp16": {"ours": _ours_fp16, ".half()": _half, "AutoCast": _autocast},
    "int8": {
        "ours": _ours_int8,
        "our placement, max": _placed,
        "ModelOpt, max": partial(_modelopt, "max"),
        "ModelOpt, entropy": partial(_modelopt, "entropy"),
    },
}
"""Every way to a precision, ours first. ``ours`` is what the farm makes engines of for TensorRT."""
