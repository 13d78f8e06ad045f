"""Precisions, with one table of their properties.

Code that depends on the precision reads this table or uses ``match``; which precisions run where is
in ``zoo/schema/targets.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from zoo.schema.closed import Lenient, Unknown, complete
from zoo.util.strenum import StrEnum


class Precision(StrEnum):
    """The precision that an engine computes in, in the order of plans and catalogs."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


AnyPrecision: TypeAlias = Annotated[Precision | Unknown, Lenient(Precision)]
"""A precision in an index, which a later version may have written."""

LowType: TypeAlias = Literal[Precision.FP16, Precision.BF16]
"""Low precisions that are floating-point types."""

Rounding: TypeAlias = Literal[Precision.FP16, Precision.BF16, Precision.INT8]
"""Precisions below fp32."""


class Rest(StrEnum):
    """Type of the layers that an int8 network does not quantise."""

    FP32 = "fp32"
    FP16 = "fp16"


class Placing(StrEnum):
    """The runtime whose fusions an int8 network's Q/DQ nodes are placed for."""

    TENSORRT = "tensorrt"
    ONNXRUNTIME = "onnxruntime"


class Lowering(StrEnum):
    """How the ONNX of a precision is derived from the exported one.

    Attributes:
        NONE: It is the exported one.
        TYPED: Weights and activations have a floating-point type with fewer bits.
        QUANTISED: Q/DQ nodes scale values to a type with fewer bits.
    """

    NONE = "none"
    TYPED = "typed"
    QUANTISED = "quantised"


@dataclass(frozen=True, kw_only=True)
class PrecisionFacts:
    """The properties of a precision.

    Attributes:
        lowering: How its ONNX is derived from the exported one.
        flags: The types that a weakly typed TensorRT network may use besides fp32.
        bits: Bits per weight.
        onnx: Element type of weights in ONNX, as named by ``TensorProto.DataType``.
        tensorrt: The same, as named by TensorRT's ``DataType``.
        stated: The same, as named by TensorRT's inspector.
        pattern: Regular expression that matches the inspector's descriptions of such tensors.
        torch: Name of the PyTorch type.
        finer: More accurate precisions; an engine that is slower than one of these has no use.
        preference: Order in which a client chooses, lowest first: fast precisions before fp32, and
            int8, which loses accuracy, only as a last resort.
        largest: Largest finite value; None if values are scaled to a range.
    """

    lowering: Lowering
    flags: tuple[Literal["fp16", "int8"], ...]
    bits: int
    onnx: str
    tensorrt: str
    stated: str
    pattern: str
    torch: str
    finer: tuple[Precision, ...]
    preference: int
    largest: float | None

    @property
    def bytes(self) -> float:
        """Bytes per weight."""
        return self.bits / 8


def is_lowered(precision: Precision) -> bool:
    """Whether the ONNX of a precision is derived from the exported one by a recipe."""
    return PRECISION_FACTS[precision].lowering is not Lowering.NONE


PRECISION_FACTS: Mapping[Precision, PrecisionFacts] = complete(
    Precision,
    {
        Precision.FP32: PrecisionFacts(
            lowering=Lowering.NONE,
            flags=(),
            bits=32,
            onnx="FLOAT",
            tensorrt="FLOAT",
            stated="Float",
            pattern="fp32|float",
            torch="float32",
            finer=(),
            preference=2,
            largest=3.4028e38,
        ),
        Precision.BF16: PrecisionFacts(
            lowering=Lowering.TYPED,
            flags=(),  # before strong typing there was no bf16
            bits=16,
            onnx="BFLOAT16",
            tensorrt="BF16",
            stated="BFloat16",
            pattern="bf16|bfloat",
            torch="bfloat16",
            finer=(Precision.FP32,),
            preference=1,
            largest=3.3895e38,
        ),
        Precision.FP16: PrecisionFacts(
            lowering=Lowering.TYPED,
            flags=("fp16",),
            bits=16,
            onnx="FLOAT16",
            tensorrt="HALF",
            stated="Half",
            pattern="fp16|half",
            torch="float16",
            finer=(Precision.FP32,),
            preference=0,
            largest=65504.0,
        ),
        Precision.INT8: PrecisionFacts(
            lowering=Lowering.QUANTISED,
            flags=("int8", "fp16"),  # fp16 for layers that are not quantised
            bits=8,
            onnx="INT8",
            tensorrt="INT8",
            stated="Int8",
            pattern="int8",
            torch="int8",
            finer=(Precision.FP32, Precision.BF16, Precision.FP16),
            preference=3,
            largest=None,
        ),
    },
)


def largest_of(low: LowType) -> float:
    """Returns the largest finite value of a floating-point type."""
    largest = PRECISION_FACTS[low].largest
    assert largest is not None, f"{low} is no floating-point type"
    return largest
