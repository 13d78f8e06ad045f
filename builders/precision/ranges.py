"""Ranges: the scale of each quantised activation, from its measured histogram."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from builders.precision.measure import Measured, magnitudes
from builders.recipe.precisions import PERCENTILE, RangeMethod
from zoo.schema.precisions import PRECISION_FACTS, Precision
from zoo.util.errors import PrecisionError

_ENTROPY_BINS = 128
_LINEAR_BINS = 1025  # over both signs, for the entropy method


Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.generic]]
"""Step and zero point, the inputs of Q/DQ nodes."""


@dataclass(frozen=True, kw_only=True)
class Levels:
    """A type that values are quantised to.

    Attributes:
        kind: Element type in ONNX: ``INT8``.
        largest: Largest quantised magnitude.
        zero: Zero point.
    """

    kind: str
    largest: float
    zero: int = 0

    @classmethod
    def of(cls, precision: Precision, *, unsigned: bool, positive: bool = False) -> Levels:
        """Returns the type for a precision.

        Args:
            precision: A quantised precision.
            unsigned: Whether the runtime requires an unsigned type.
            positive: Whether no value is negative, so that an unsigned type needs no zero point.

        Raises:
            PrecisionError: The runtime requires an unsigned type, and the precision has none.
        """
        facts = PRECISION_FACTS[precision]
        if not unsigned:
            return cls(kind=facts.onnx, largest=facts.largest)
        if facts.unsigned is None:
            raise PrecisionError(f"{precision} has no unsigned type, which ONNX Runtime needs", {})
        if positive:
            return cls(kind=facts.unsigned, largest=2 * facts.largest + 1)
        return cls(kind=facts.unsigned, largest=facts.largest, zero=int(facts.largest) + 1)

    def arrays(self, steps: npt.NDArray[np.float32]) -> Arrays:
        """Returns the inputs of Q/DQ nodes.

        Args:
            steps: The step, or that of each channel.
        """
        from onnx import TensorProto, helper

        kind = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(self.kind))
        return steps, np.full(steps.shape, self.zero, kind)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How an activation is quantised.

    Attributes:
        step: Real value of a quantised 1.
        levels: The type.
    """

    step: float
    levels: Levels

    def arrays(self) -> Arrays:
        """Returns step and zero point as the inputs of Q/DQ nodes."""
        return self.levels.arrays(np.array(self.step, np.float32))


def activation_scales(
    measured: Measured, method: RangeMethod, precision: Precision, *, unsigned: bool = False
) -> dict[str, Scale]:
    """Returns the scale of every activation that has a histogram.

    Args:
        measured: Measurements on calibration images.
        method: How to choose a range.
        precision: A quantised precision.
        unsigned: Whether to use its unsigned type: with zero point 0 if the activation is never
            negative.

    Returns:
        Value to scale.
    """
    limit_of = _limit_function(method)
    scales = {}
    for name, counts in measured.histograms.items():
        peak = measured.peaks[name]
        positive = measured.lows[name] >= 0
        levels = Levels.of(precision, unsigned=unsigned, positive=positive)
        # Any range suits an activation that is all zeros. A bin's edge may exceed the peak.
        limit = min(limit_of(counts, peak, levels.largest), peak) if peak > 0 else 1.0
        scales[name] = Scale(step=limit / levels.largest, levels=levels)
    return scales


def weight_scales(
    values: npt.NDArray[np.float32], axis: int, largest: float
) -> npt.NDArray[np.float32]:
    """Returns the step of each output channel; 1 for a channel of zeros.

    Args:
        values: The weights.
        axis: Axis of the output channels.
        largest: Largest quantised magnitude.
    """
    others = tuple(index for index in range(values.ndim) if index != axis)
    peaks = np.abs(values).max(axis=others)
    steps: npt.NDArray[np.float32] = np.where(peaks > 0, peaks / largest, 1.0).astype(np.float32)
    return steps


def _limit_function(method: RangeMethod) -> Callable[[npt.NDArray[np.int64], float, float], float]:
    """Returns the function that chooses a range.

    It maps counts, peak and the number of levels to the largest magnitude that is not clipped.
    """
    match method:
        case RangeMethod.MAX:
            return _max
        case RangeMethod.PERCENTILE:
            return _percentile
        case RangeMethod.MSE:
            return _mse
        case RangeMethod.ENTROPY:
            return _entropy
        case _:
            assert_never(method)


def _max(counts: npt.NDArray[np.int64], peak: float, levels: float) -> float:
    return peak


def _percentile(counts: npt.NDArray[np.int64], peak: float, levels: float) -> float:
    reached = np.searchsorted(np.cumsum(counts), PERCENTILE / 100 * counts.sum())
    edges = magnitudes()
    return float(edges[min(reached + 1, len(edges) - 1)])


def _mse(counts: npt.NDArray[np.int64], peak: float, levels: float) -> float:
    used = np.flatnonzero(counts)
    edges, weights = magnitudes()[used].astype(np.float64), counts[used]
    limits = peak * np.linspace(0.1, 1.0, 91)
    errors = []
    for limit in limits:
        step = limit / levels
        rounded = np.minimum(np.rint(edges / step), levels) * step
        # Far above a step, bins are wider than a step: there the error is that of uniform rounding.
        inside = np.where(edges > 64 * step, step**2 / 12, (edges - rounded) ** 2)
        clipped = (edges - limit) ** 2
        errors.append(float((weights * np.where(edges > limit, clipped, inside)).sum()))
    return float(limits[int(np.argmin(errors))])


def _entropy(counts: npt.NDArray[np.int64], peak: float, levels: float) -> float:
    from onnxruntime.quantization.calibrate import HistogramCollector

    used = np.flatnonzero(counts[1:]) + 1  # zeros quantise exactly and would dominate the others
    edges, weights = magnitudes()[used], counts[used]
    both = np.concatenate([-edges[::-1], edges])
    linear, borders = np.histogram(
        both,
        bins=_LINEAR_BINS,
        range=(-peak, peak),
        weights=np.concatenate([weights[::-1], weights]),
    )
    collector = HistogramCollector(
        method="entropy", symmetric=True, num_bins=_LINEAR_BINS, num_quantized_bins=_ENTROPY_BINS,
        percentile=PERCENTILE, scenario="same",
    )  # fmt: skip
    histogram = (linear, borders, -peak, peak, peak)
    low, high = collector.get_entropy_threshold(histogram, _ENTROPY_BINS)[:2]
    return max(abs(float(low)), abs(float(high)))
