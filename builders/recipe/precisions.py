"""Recipes: how each precision is made, said in words and numbers that are part of export keys."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.schema.closed import complete
from zoo.schema.targets import Precision
from zoo.util.strenum import StrEnum

SUMMING = ("GlobalAveragePool", "LayerNormalization", "ReduceMean", "ReduceSum", "Softmax")
"""Operators that stay fp32 below fp32: they sum over many elements."""

NOT_IN_BF16 = ("HardSwish",)
"""Operators that TensorRT's parser takes in fp32 and fp16 alone."""

HEADROOM = 8.0
"""How far below a type's largest value the values of calibration images must stay."""


class RangeMethod(StrEnum):
    """How an activation's int8 range is derived from its histogram.

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
"""Share of magnitudes, in percent, that the range of that name covers."""

SAFETIES = (0.65, 0.25, 0.0)
"""Part of each floor that the calibration images may use up: golden photos are others. The later
ones are for networks whose engine missed its floors: it rounds where no ONNX shows. With the last,
as much is kept in higher precision as may be."""

MOST_KEPT = 0.5
"""Largest share of a network's multiplications that the advisor keeps out of a precision. What
would need more is not made under its name."""

MOST_TRIED = 64
"""Operators that the advisor tries one by one, where a network misses its floors as a whole."""

_KEPT = "and the operators that the advisor keeps there"

RECIPES: Mapping[Precision, str] = complete(
    Precision,
    {
        Precision.FP32: "as exported",
        Precision.FP16: "fp16-2: weights and activations fp16, outputs fp32; fp32 are "
        f"{', '.join(SUMMING)}, what comes within {HEADROOM:g} times of 65504 on calibration "
        f"images, {_KEPT}",
        Precision.BF16: "bf16-3: weights and activations bf16, outputs fp32; fp32 are "
        f"{', '.join((*SUMMING, *NOT_IN_BF16))}, {_KEPT}",
        Precision.INT8: "int8-4: symmetric Q/DQ, weights per channel, activations per tensor, on "
        "inputs of convolutions and matrix products with weights, then as the runtime fuses; for "
        "TensorRT a Clip that ends where int8 saturates is a Relu; ranges by the best of "
        f"{', '.join(RangeMethod)} ({PERCENTILE}); operators that the advisor keeps have none",
    },
)
"""What each precision is made by. Raise the number when the making changes."""
