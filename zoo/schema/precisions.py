"""Precisions, with one table of their properties.

Code that depends on the precision reads this table or uses ``match``; which precisions run where is
in ``zoo/schema/targets.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from typing_extensions import assert_never

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


class Rest(StrEnum):
    """Type of the layers that a quantised network does not quantise."""

    FP32 = "fp32"
    FP16 = "fp16"


class Placing(StrEnum):
    """The runtime whose fusions a quantised network's Q/DQ nodes are placed for."""

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
        unsigned: Its unsigned counterpart in ONNX, None if there is none.
        opset: The first ONNX opset whose operators support the type.
        tensorrt: The same, as named by TensorRT's ``DataType``.
        stated: The same, as named by TensorRT's inspector.
        pattern: Regular expression that matches the inspector's descriptions of such tensors.
        torch: Name of the PyTorch type.
        finer: More accurate precisions; an engine that is slower than one of these has no use.
        preference: Order in which a client chooses, lowest first: fast precisions before fp32, and
            int8, which loses accuracy, only as a last resort.
        largest: Largest finite value of the type.
    """

    lowering: Lowering
    flags: tuple[Literal["fp16", "int8"], ...]
    bits: int
    onnx: str
    unsigned: str | None = None
    opset: int
    tensorrt: str
    stated: str
    pattern: str
    torch: str
    finer: tuple[Precision, ...]
    preference: int
    largest: float

    @property
    def bytes(self) -> float:
        """Bytes per weight."""
        return self.bits / 8


def is_lowered(precision: Precision) -> bool:
    """Whether the ONNX of a precision is derived from the exported one by a recipe."""
    lowering = PRECISION_FACTS[precision].lowering
    match lowering:
        case Lowering.NONE:
            return False
        case Lowering.TYPED | Lowering.QUANTISED:
            return True
        case _:
            assert_never(lowering)


def is_quantised(precision: Precision) -> bool:
    """Whether Q/DQ nodes scale the values of a network of a precision."""
    lowering = PRECISION_FACTS[precision].lowering
    match lowering:
        case Lowering.QUANTISED:
            return True
        case Lowering.NONE | Lowering.TYPED:
            return False
        case _:
            assert_never(lowering)


PRECISION_FACTS: Mapping[Precision, PrecisionFacts] = complete(
    Precision,
    {
        Precision.FP32: PrecisionFacts(
            lowering=Lowering.NONE,
            flags=(),
            bits=32,
            onnx="FLOAT",
            opset=1,
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
            opset=22,  # bf16 convolutions; for our operators, 21 and 22 add only types
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
            opset=1,
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
            unsigned="UINT8",
            opset=13,  # the first with scales per channel
            tensorrt="INT8",
            stated="Int8",
            pattern="int8",
            torch="int8",
            finer=(Precision.FP32, Precision.BF16, Precision.FP16),
            preference=3,
            largest=127.0,  # symmetric
        ),
    },
)
