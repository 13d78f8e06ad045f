"""Ranges: from what was seen of an activation to the magnitude that int8's 127 stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from builders.precision.measure import Measured, magnitudes
from builders.recipe.precisions import PERCENTILE, RangeMethod

LEVELS = 127
_UNSIGNED_LEVELS = 255
_LINEAR_BINS = 1025  # of both signs, for the entropy


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How an activation is quantised.

    Attributes:
        step: What one step stands for.
        unsigned: Whether it is uint8; else int8.
        zero: Which number stands for zero.
    """

    step: float
    unsigned: bool = False
    zero: int = 0

    def arrays(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.generic]]:
        """Returns step and zero point as Q/DQ take them."""
        kind = np.uint8 if self.unsigned else np.int8
        return np.array(self.step, np.float32), np.array(self.zero, kind)


def activation_scales(
    measured: Measured, method: RangeMethod, *, unsigned: bool = False
) -> dict[str, Scale]:
    """Tells the scale of every activation that was binned.

    Args:
        measured: What was seen on calibration images.
        method: How its range is derived.
        unsigned: Whether all are uint8: what is never negative from 0 up, the rest around 128.

    Returns:
        By value.
    """
    tell = _reach(method)
    found = {}
    for name, counts in measured.histograms.items():
        peak = measured.peaks[name]
        positive = unsigned and measured.lows[name] >= 0
        levels = _UNSIGNED_LEVELS if positive else LEVELS
        # What is zero throughout quantises at any range; what is sampled may miss the peak.
        reach = min(tell(counts, peak, levels), peak) if peak > 0 else 1.0
        zero = 128 if unsigned and not positive else 0
        found[name] = Scale(step=reach / levels, unsigned=unsigned, zero=zero)
    return found


def weight_scales(values: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    """Returns the int8 step of each output channel; 1 for a channel of zeros."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    peaks = np.abs(values).max(axis=others)
    scales: npt.NDArray[np.float32] = np.where(peaks > 0, peaks / LEVELS, 1.0).astype(np.float32)
    return scales


def _reach(method: RangeMethod) -> Callable[[npt.NDArray[np.int64], float, int], float]:
    """Returns the function from counts, peak and levels to the largest magnitude not clipped."""
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


def _max(counts: npt.NDArray[np.int64], peak: float, levels: int) -> float:
    return peak


def _percentile(counts: npt.NDArray[np.int64], peak: float, levels: int) -> float:
    reached = np.searchsorted(np.cumsum(counts), PERCENTILE / 100 * counts.sum())
    edges = magnitudes()
    return float(edges[min(reached + 1, len(edges) - 1)])


def _mse(counts: npt.NDArray[np.int64], peak: float, levels: int) -> float:
    used = np.flatnonzero(counts)
    edges, weights = magnitudes()[used].astype(np.float64), counts[used]
    tried = peak * np.linspace(0.1, 1.0, 91)
    errors = []
    for limit in tried:
        step = limit / levels
        rounded = np.minimum(np.rint(edges / step), levels) * step
        # A magnitude far below a step rounds to zero; bins far above it are wider than a step,
        # where rounding costs what a uniform error does.
        inside = np.where(edges > 64 * step, step**2 / 12, (edges - rounded) ** 2)
        clipped = (edges - limit) ** 2
        errors.append(float((weights * np.where(edges > limit, clipped, inside)).sum()))
    return float(tried[int(np.argmin(errors))])


def _entropy(counts: npt.NDArray[np.int64], peak: float, levels: int) -> float:
    from onnxruntime.quantization.calibrate import HistogramCollector

    used = np.flatnonzero(counts[1:]) + 1  # zeros quantise without error, and would drown the rest
    edges, weights = magnitudes()[used], counts[used]
    both = np.concatenate([-edges[::-1], edges])
    linear, borders = np.histogram(
        both,
        bins=_LINEAR_BINS,
        range=(-peak, peak),
        weights=np.concatenate([weights[::-1], weights]),
    )
    collector = HistogramCollector(
        method="entropy", symmetric=True, num_bins=_LINEAR_BINS, num_quantized_bins=LEVELS + 1,
        percentile=PERCENTILE, scenario="same",
    )  # fmt: skip
    low, high = collector.get_entropy_threshold((linear, borders, -peak, peak, peak), LEVELS + 1)[
        :2
    ]
    return max(abs(float(low)), abs(float(high)))
