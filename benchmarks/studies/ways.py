"""The methods that convert a model to a lower precision: ours and others', in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from benchmarks.studies.modelopt import ModelOpt, ModelOptRange
from benchmarks.studies.result import Studied
from benchmarks.studies.subject import Subject
from builders.precision import lower
from builders.precision.graph import name_nodes
from builders.precision.measure import measure
from builders.precision.qdq import place, quantise
from builders.precision.ranges import activation_scales
from builders.recipe.precisions import RangeMethod
from zoo.schema.precisions import Placing, Precision

if TYPE_CHECKING:
    import onnx

Made: TypeAlias = "tuple[onnx.ModelProto, str]"
"""A network and a note on it."""


@dataclass(frozen=True)
class Way:
    """A conversion method; its functions raise PrecisionError or RunError if they fail.

    Attributes:
        own: Converts with packages of the farm.
        others: Converts with ModelOpt.
    """

    own: Callable[[Subject], Made] | None = None
    others: Callable[[Subject, ModelOpt], Made] | None = None

    def make(
        self, subject: Subject, modelopt: ModelOpt | None
    ) -> tuple[onnx.ModelProto, str] | None:
        """Returns the converted network; None if that needs ModelOpt and it is not installed."""
        if self.own:
            return self.own(subject)
        return self.others(subject, modelopt) if self.others and modelopt else None


def _ours_fp16(subject: Subject) -> tuple[onnx.ModelProto, str]:
    made, advice = lower(
        subject.fp32(),
        Precision.FP16,
        subject.calibration(),
        subject.manifest.kept_by(Precision.FP16),
    )
    islands = [f"{count} {reason}" for reason, count in advice.islands.items()]
    kept = [f"{len(advice.kept)} kept higher"] if advice.kept else []
    return made, ", ".join(islands + kept)


def _half(subject: Subject) -> tuple[onnx.ModelProto, str]:
    import onnx

    return onnx.load(subject.folder / "half.onnx"), ""


def _ours_int8(subject: Subject) -> tuple[onnx.ModelProto, str]:
    made, advice = lower(
        subject.fp32(),
        Precision.INT8,
        subject.calibration(),
        subject.manifest.kept_by(Precision.INT8),
    )
    kept = f", {len(advice.kept)} kept higher" if advice.kept else ""
    return made, f"ranges by {advice.ranges}{kept}"


def _placed(ranges: RangeMethod, subject: Subject) -> tuple[onnx.ModelProto, str]:
    """Our placement without the advisor, which would keep operators in higher precision."""
    model = subject.fp32()
    name_nodes(model)
    placement = place(model, Placing.TENSORRT)
    images = subject.calibration().all
    batches = (images[at : at + 1] for at in range(len(images)))
    measured = measure(model, batches, placement.activations)
    return quantise(
        model, placement, Precision.INT8, activation_scales(measured, ranges, Precision.INT8)
    ), ""


def _onnxruntime(subject: Subject) -> tuple[onnx.ModelProto, str]:
    """ONNX Runtime's own placement, with the types that TensorRT supports."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        quantize_static,
    )

    images = iter(subject.calibration().all)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] | None:
            image = next(images, None)
            return None if image is None else {"images": image[np.newaxis]}

    made = subject.folder / "onnxruntime.onnx"
    quantize_static(
        subject.folder / "fp32.onnx",
        made,
        Reader(),
        quant_format=QuantFormat.QDQ,
        calibrate_method=CalibrationMethod.MinMax,
        per_channel=True,
        extra_options={
            "ActivationSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
        },
    )
    return onnx.shape_inference.infer_shapes(onnx.load(made), strict_mode=True, data_prop=True), ""


def _autocast(subject: Subject, modelopt: ModelOpt) -> tuple[onnx.ModelProto, str]:
    folder, images = subject.folder, subject.calibration().evaluated
    return modelopt.autocast(folder / "fp32.onnx", folder / "autocast.onnx", images), ""


def _modelopt(
    ranges: ModelOptRange, subject: Subject, modelopt: ModelOpt
) -> tuple[onnx.ModelProto, str]:
    folder, images = subject.folder, subject.calibration().all
    made = folder / f"modelopt-{ranges}.onnx"
    return modelopt.quantise(folder / "fp32.onnx", made, images, ranges), ""


WAYS: dict[Studied, dict[str, Way]] = {
    Precision.FP16: {
        ".half()": Way(own=_half),
        "AutoCast": Way(others=_autocast),
        "ours": Way(own=_ours_fp16),
    },
    Precision.INT8: {
        "our placement, max": Way(own=partial(_placed, RangeMethod.MAX)),
        "our placement, percentile": Way(own=partial(_placed, RangeMethod.PERCENTILE)),
        "our placement, mse": Way(own=partial(_placed, RangeMethod.MSE)),
        "our placement, entropy": Way(own=partial(_placed, RangeMethod.ENTROPY)),
        "ONNX Runtime, max": Way(own=_onnxruntime),
        "ModelOpt, max": Way(others=partial(_modelopt, "max")),
        "ModelOpt, entropy": Way(others=partial(_modelopt, "entropy")),
        "ours": Way(own=_ours_int8),
    },
}
"""Every conversion method. ``ours`` is what the farm builds TensorRT engines from; it comes last,
because the advisor may take long."""
