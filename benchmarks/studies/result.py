"""Results: properties of a network of lower precision and its features on the CPU."""

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
    """Result of one method on one model.

    Attributes:
        way: Name of the method.
        operators: Number of operators with float results, without casts and Q/DQ.
        low: How many of them compute in the precision.
        work: Their share of the multiplications of convolutions and matrix products.
        worst_cosine: Smallest cosine of golden photos' features with PyTorch's; None if some
            features are not finite.
        median_cosine: Median of these cosines.
        worst_error: Largest ``|y - r| / |r|``.
        quantised: Number of quantised inputs, without weights, by operator type.
        bad_rows: Photos whose features contain NaN or infinity.
        weights_error: Median ``|w - w32| / |w32|`` of convolution and matrix weights; None if they
            don't correspond to those of the fp32 network.
        largest_value: Largest magnitude of an fp16 value; infinite if one overflowed.
        largest_sum: Upper bound of the partial sums within fp16 operators, whose overflow the
            rounding of values does not show.
        misses: Limits of the tolerance that are missed.
        seconds: Duration of the conversion.
        note: A remark, or why there is no network.
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
    """Results of one model.

    Attributes:
        model: Manifest id.
        precision: Precision that it was converted to.
        seeded: Whether its weights are seeded ones.
        photos: Number of golden photos that features were compared on.
        rows: One row per method.
        modelopt: Version of ModelOpt; empty if no row needed it.
        machines: Machines that computed the rows.
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
        """Returns the result of a method; None if it has not been tried."""
        return next((row for row in self.rows if row.way == way), None)

    def with_row(self, row: Row, modelopt: str, machine: str) -> Studies:
        """Returns a copy with one more row."""
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
        precision: Precision of the network.
        way: Name of the method that made it.
        model: The network, with the type and shape of every value.
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
    """Returns how much of a network computes in a precision.

    Args:
        model: The network, with the type and shape of every value.
        precision: An operator counts as fp16 if its result is fp16, and as int8 if all its inputs
            are dequantised values.

    Returns:
        The number of operators, how many compute in the precision, and their share of the
        multiplications.
    """
    from onnx import TensorProto

    graph = model.graph
    types = _types(model)
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    shapes = {name: [dim.dim_value or 1 for dim in kind.shape.dim] for name, kind in types.items()}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    operators = low = work = low_work = 0
    for node in graph.node:
        result = node.output[0]
        kind = types[result].elem_type if result in types else 0
        if node.op_type in _NOT_COUNTED and node.input:
            shapes.setdefault(result, shapes.get(node.input[0], []))  # casts have no recorded shape
        if node.op_type in _NOT_COUNTED or kind not in floats:
            continue
        match precision:
            case Precision.FP16:
                is_low = kind == TensorProto.FLOAT16
            case Precision.INT8:
                producers = [made_by.get(name) for name in node.input[:2]]
                is_low = bool(producers) and set(producers) == {"DequantizeLinear"}
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
    """Returns the number of quantised inputs, without weights, by operator type."""
    constant = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:  # quantised weights are constant too
        if node.op_type == "QuantizeLinear" and node.input[0] in constant:
            constant.add(node.output[0])
    activations = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] not in constant
    }
    consumers = (
        node.op_type for node in model.graph.node for name in node.input if name in activations
    )
    return dict(sorted(Counter(consumers).items()))


def weights_error(model: onnx.ModelProto, fp32: onnx.ModelProto) -> float | None:
    """Returns the median over operators of the relative error of their weights.

    Args:
        model: The network in lower precision, without Q/DQ.
        fp32: The same network in fp32.
    """
    rounded, exact = _multiplied(model), _multiplied(fp32)
    if not exact or [array.shape for array in rounded] != [array.shape for array in exact]:
        return None
    errors = [
        np.linalg.norm(low.astype(np.float64) - full) / np.linalg.norm(full)
        for low, full in zip(rounded, exact, strict=True)
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
    """Returns the largest fp16 value and the largest partial sum of an fp16 operator."""
    from onnx import TensorProto

    low = {name for name, kind in _types(model).items() if kind.elem_type == TensorProto.FLOAT16}
    summing = {node.name for node in model.graph.node if node.output[0] in low}
    measured = measure(rounded_in_fp32(model), np.array_split(images, len(images)))
    value = max((peak for name, peak in measured.peaks.items() if name in low), default=0.0)
    summed = max((total for name, total in measured.sums.items() if name in summing), default=0.0)
    return value, summed


def _types(model: onnx.ModelProto) -> dict[str, Any]:
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    return {value.name: value.type.tensor_type for value in values}
