"""Recipes: how an ONNX of each precision is made, in words and numbers that are in export keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zoo.schema.closed import complete
from zoo.schema.targets import Precision
from zoo.util.strenum import StrEnum

SUMMING = ("GlobalAveragePool", "LayerNormalization", "ReduceMean", "ReduceSum", "Softmax")
"""Operators in fp32 that recipes' texts name, as part of export keys. All of them, with reasons,
are in :data:`builders.recipe.operators.IN_FP32`; the texts stay, so that keys stay (ADR 32)."""

_NOT_IN_BF16 = ("HardSwish",)  # TensorRT's parser supports them in fp32 and fp16 only

HEADROOM = 8.0
"""Factor by which activations of calibration images must stay below a type's largest value."""


class RangeMethod(StrEnum):
    """How a quantised activation's range is derived from its histogram.

    The method that changes the features least is used, the first of equals.

    Attributes:
        MAX: The largest magnitude.
        PERCENTILE: The magnitude that :data:`PERCENTILE` percent of all stay below.
        MSE: The range with the least mean squared error of rounding and clipping together.
        ENTROPY: The range with the least divergence of the quantised distribution, by ONNX Runtime.
    """

    MAX = "max"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"


PERCENTILE = 99.99
"""Percentage of magnitudes that the range of the ``percentile`` method covers."""

SAFETIES = (0.65, 0.25, 0.0)
"""Fraction of the tolerated error that calibration images may use up; the margin is for golden
photos, which differ. The later values are for networks whose engine missed its tolerance, because
the runtime introduces rounding that evaluating the ONNX cannot reproduce. The last keeps as many
operators in higher precision as :data:`MOST_KEPT` permits."""

MOST_KEPT = 0.5
"""Largest share of a network's multiplications that the advisor keeps in higher precision. A
network that needs more gets no engine of that precision."""

MOST_TRIED = 64
"""Operators that the advisor tries one by one if the network as a whole misses its tolerance."""

_KEPT = "and the operators that the advisor keeps there"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an ONNX of a precision is made.

    Attributes:
        text: In words, part of export keys. Raise its number when the recipe changes.
        unread: Operators that TensorRT's parser does not support in this type; they stay in fp32.
        ranges: For quantised precisions, how ranges may be determined, in the order of trials.
    """

    text: str
    unread: tuple[str, ...] = ()
    ranges: tuple[RangeMethod, ...] = ()


RECIPES: Mapping[Precision, Recipe] = complete(
    Precision,
    {
        Precision.FP32: Recipe(text="as exported"),
        Precision.FP16: Recipe(
            text="fp16-2: weights and activations fp16, outputs fp32; fp32 are "
            f"{', '.join(SUMMING)}, what comes within {HEADROOM:g} times of 65504 on calibration "
            f"images, {_KEPT}",
        ),
        Precision.BF16: Recipe(
            text="bf16-3: weights and activations bf16, outputs fp32; fp32 are "
            f"{', '.join((*SUMMING, *_NOT_IN_BF16))}, {_KEPT}",
            unread=_NOT_IN_BF16,
        ),
        Precision.INT8: Recipe(
            text="int8-4: symmetric Q/DQ, weights per channel, activations per tensor, on "
            "inputs of convolutions and matrix products with weights, then as the runtime fuses; "
            "for TensorRT a Clip that ends where int8 saturates is a Relu; ranges by the best of "
            f"{', '.join(RangeMethod)} ({PERCENTILE}); operators that the advisor keeps have none",
            ranges=tuple(RangeMethod),
        ),
    },
)
