"""Result: what a network of lower precision is like, looked at and run on the CPU."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict
from typing_extensions import assert_never

from benchmarks.studies.subject import Subject
from builders.precision import rounded_in_fp32
from builders.precision.graph import name_nodes
from builders.precision.measure import measure
from builders.precision.search import run
from builders.verify.metrics import compare_rows
from builders.verify.misses import find_misses
from zoo.schema.precisions import Precision

if TYPE_CHECKING:
    import onnx

Studied: TypeAlias = Literal[Precision.FP16, Precision.INT8]

_MULTIPLYING = ("Conv", "Gemm", "MatMul")
_NOT_COUNTED = ("Cast", "Constant", "QuantizeLinear", "DequantizeLinear")


class Row(BaseModel):
    """One way to make one model.

    Attributes:
        way: Its name.
        operators: Those that give floats, casts and Q/DQ aside.
        low: How many of them compute in the precision.
        work: Share of the multiplications of convolutions and matrix products that do.
        worst_cosine: Of the golden photos' features with PyTorch's; None where some are not finite.
        median_cosine: Of all of them.
        worst_error: Largest ``|y - r| / |r|``.
        quantised: How many inputs that are no weights are quantised, by kind of operator.
        bad_rows: Photos whose features hold NaN or infinity.
        weights_error: Median ``|w - w32| / |w32|`` of the weights that are multiplied with; None
            where they can't be put beside those of the fp32 network.
        largest_value: Largest magnitude of an fp16 value; infinite where one overflowed.
        largest_sum: Largest that a sum within an fp16 operator can grow to on the way; rounding
            every value does not show it where it overflows.
        misses: Floors that are missed.
        seconds: That making it took.
        note: What else to know; why there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    way: str
    operators: int = 0
    low: int = 0
    work: float = 0.0
    worst_cosine: float | None = None
    median_cosine: float | None = None
    worst_error: float | None = None
    quantised: dict[str, int] = {}
    bad_rows: int = 0
    weights_error: float | None = None
    largest_value: float = 0.0
    largest_sum: float = 0.0
    misses: tuple[str, ...] = ()
    seconds: float = 0.0
    note: str = ""


class Studies(BaseModel):
    """What was found out of one model.

    Attributes:
        model: Manifest id.
        precision: That its ways give.
        seeded: Whether its weights are a stand-in.
        photos: How many golden photos it was judged on.
        rows: One for each way.
        modelopt: Its version, empty where no row needed it.
        machines: That the rows were made on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    model: str
    precision: Studied
    seeded: bool
    photos: int
    rows: tuple[Row, ...] = ()
    modelopt: str = ""
    machines: tuple[str, ...] = ()

    def row(self, way: str) -> Row | None:
        """Returns what a way gave; None where it has not been tried."""
        return next((row for row in self.rows if row.way == way), None)

    def with_row(self, row: Row, modelopt: str, machine: str) -> Studies:
        """Returns it with one more way."""
        return self.model_copy(
            update={
                "rows": (*self.rows, row),
                "modelopt": self.modelopt or modelopt,
                "machines": tuple(dict.fromkeys((*self.machines, machine))),
            }
        )


def look(subject: Subject, precision: Studied, way: str, model: onnx.ModelProto) -> Row:
    """Runs the golden photos through a network and compares it with PyTorch.

    Args:
        subject: The model.
        precision: Of the network.
        way: How it was made.
        model: With the type and shape of every value.
    """
    name_nodes(model)
    images, expected = subject.golden()
    numbers = compare_rows(run(model, images), expected, expected)
    operators, low, work = share(model, precision)
    value, summed = _largest(model, images) if precision == Precision.FP16 else (0.0, 0.0)
    return Row(
        way=way,
        operators=operators,
        low=low,
        work=work,
        worst_cosine=numbers.worst_cosine,
        median_cosine=numbers.median_cosine,
        worst_error=numbers.worst_relative_error,
        quantised=quantised_inputs(model),
        bad_rows=numbers.rows_not_finite or 0,
        weights_error=weights_error(model, subject.fp32()) if precision == Precision.FP16 else None,
        largest_value=value,
        largest_sum=summed,
        misses=tuple(find_misses(numbers, subject.manifest.kept_by(precision))),
    )


def share(model: onnx.ModelProto, precision: Studied) -> tuple[int, int, float]:
    """Tells how much of a network computes in a precision.

    Args:
        model: With the type and shape of every value.
        precision: ``fp16`` is what gives fp16; ``int8`` what takes nothing but dequantised values.

    Returns:
        Operators; those of them in the precision; their share of the multiplications.
    """
    from onnx import TensorProto

    graph = model.graph
    types = _types(model)
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    shapes = {name: [dim.dim_value or 1 for dim in one.shape.dim] for name, one in types.items()}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    operators = low = work = low_work = 0
    for node in graph.node:
        result = node.output[0]
        kind = types[result].elem_type if result in types else 0
        if node.op_type in _NOT_COUNTED and node.input:
            shapes.setdefault(result, shapes.get(node.input[0], []))  # casts have none stated
        if node.op_type in _NOT_COUNTED or kind not in floats:
            continue
        match precision:
            case Precision.FP16:
                is_low = kind == TensorProto.FLOAT16
            case Precision.INT8:
                takes = [made_by.get(name) for name in node.input[:2]]
                is_low = len(takes) > 0 and all(one == "DequantizeLinear" for one in takes)
            case _:
                assert_never(precision)
        operators, low = operators + 1, low + is_low
        if node.op_type in _MULTIPLYING:
            weight = shapes[node.input[1]]
            depth = weight[1:] if node.op_type == "Conv" else shapes[node.input[0]][-1:]
            times = math.prod(shapes[result]) * math.prod(depth)
            work, low_work = work + times, low_work + times * is_low
    return operators, low, low_work / max(work, 1)


def quantised_inputs(model: onnx.ModelProto) -> dict[str, int]:
    """Returns how many inputs with Q/DQ, weights aside, there are by kind of operator."""
    constant = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:  # what weights are quantised to is constant too
        if node.op_type == "QuantizeLinear" and node.input[0] in constant:
            constant.add(node.output[0])
    activations = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] not in constant
    }
    taken = (
        node.op_type for node in model.graph.node for name in node.input if name in activations
    )
    return dict(sorted(Counter(taken).items()))


def weights_error(model: onnx.ModelProto, fp32: onnx.ModelProto) -> float | None:
    """Returns the median relative error of weights, operator by operator.

    Args:
        model: Of lower precision, without Q/DQ.
        fp32: The same network.
    """
    rounded, exact = _multiplied(model), _multiplied(fp32)
    if not exact or [one.shape for one in rounded] != [one.shape for one in exact]:
        return None
    errors = [
        np.linalg.norm(found.astype(np.float64) - wanted) / np.linalg.norm(wanted)
        for found, wanted in zip(rounded, exact, strict=True)
    ]
    return float(np.median(errors))


def _multiplied(model: onnx.ModelProto) -> list[Any]:
    """Returns the constant weights of convolutions and matrix products, in order."""
    from onnx import numpy_helper

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        numpy_helper.to_array(weights[node.input[1]])
        for node in model.graph.node
        if node.op_type in _MULTIPLYING and node.input[1] in weights
    ]


def _largest(model: onnx.ModelProto, images: Any) -> tuple[float, float]:
    """Returns the largest fp16 value, and the largest sum of an operator in fp16."""
    from onnx import TensorProto

    low = {name for name, one in _types(model).items() if one.elem_type == TensorProto.FLOAT16}
    summing = {node.name for node in model.graph.node if node.output[0] in low}
    measured = measure(rounded_in_fp32(model), np.array_split(images, len(images)))
    value = max((peak for name, peak in measured.peaks.items() if name in low), default=0.0)
    summed = max((one for name, one in measured.sums.items() if name in summing), default=0.0)
    return value, summed


def _types(model: onnx.ModelProto) -> dict[str, Any]:
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    return {value.name: value.type.tensor_type for value in values}
