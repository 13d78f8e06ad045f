"""Computes how small a value is where an image gives nothing, and how large its reciprocal.

``x + 1e-4`` is 1e-4 for ``x = 0``; its square is 1e-8, and one over that 1e8. Networks divide by
such values, so the constant must survive every operator on the way in the type that it has. A
value that no positive constant bounds has no entry: dividing by it is the network's own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builders.precision.graph import Graph

if TYPE_CHECKING:
    import onnx

POOLS = frozenset({
    "AveragePool", "CumSum", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool",
    "MaxPool", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum",
})  # fmt: skip
"""Operators that merge elements of one value, and are no smaller than the smallest of them."""

MOVES = frozenset({
    "Abs", "Cast", "CastLike", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather",
    "GatherElements", "GatherND", "Identity", "Neg", "Pad", "Relu", "Reshape", "Resize", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Upsample",
})  # fmt: skip
"""Operators whose result has the magnitudes of their first input."""

PRODUCTS = frozenset({"Conv", "Einsum", "Gemm", "MatMul"})
"""Operators that sum products of two inputs."""

_ADDED = 2.0**-12
"""What is smaller, relative to a sum, changes nothing in fp16."""


@dataclass
class Bounds:
    """Magnitudes where an image gives nothing.

    Attributes:
        graph: The fp32 network.
        constants: Values that are the same for every image, as far as they are known.
        fixed: Names of all values that are the same for every image.
        least: Value to its magnitude, if positive constants bound it from below.
        most: Value to its magnitude, if it is a reciprocal of such a value.
    """

    graph: Graph
    constants: Mapping[str, npt.NDArray[Any]]
    fixed: set[str]
    least: dict[str, float] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)

    def exponent(self, node: onnx.NodeProto) -> float:
        """Returns the largest exponent of a node that computes powers; 0 if there is none."""
        if node.op_type in ("Sqrt", "ReduceSumSquare"):
            return 0.5 if node.op_type == "Sqrt" else 2.0
        if node.op_type == "ReduceProd" and node.input[0] in self.graph.shapes:
            return self.graph.elements(node.input[0]) / self.graph.elements(node.output[0])
        values = self.constants.get(node.input[1]) if node.op_type == "Pow" else None
        return 0.0 if values is None or not values.size else float(values.max())

    def magnitudes(self, name: str) -> tuple[float, float]:
        """Returns the smallest magnitude of a constant that is not 0, and the largest."""
        values = np.abs(self.constants.get(name, np.ones(1)))
        values = values[values > 0]
        return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)

    def sums_alike(self, node: onnx.NodeProto) -> bool:
        """Returns whether a node sums products with weights of one sign."""
        weights = [n for n, name in enumerate(node.input[:2]) if name in self.fixed]
        if node.op_type not in PRODUCTS or not weights:
            return False
        return all(_least_weights(self, node, n) > 0 for n in weights)

    def negligible(self, name: str, node: onnx.NodeProto) -> bool:
        """Returns whether a value may be 0 because something larger is added to it."""
        if node.op_type not in ("Add", "Max", "Sum") or name not in self.least:
            return False
        return self.least[name] < _ADDED * self.least.get(node.output[0], 0.0)

    def divisor(self, node: onnx.NodeProto) -> str | None:
        """Returns what a node divides by or takes the logarithm of; None if that is constant."""
        name = None
        if node.op_type == "Div":
            name = node.input[1]
        elif node.op_type in ("Reciprocal", "Log") or (
            node.op_type == "Pow" and self.exponent(node) < 0
        ):
            name = node.input[0]
        return None if name in self.fixed else name


def bounds_of(graph: Graph, constants: Mapping[str, npt.NDArray[Any]]) -> Bounds:
    """Returns the bounds of a network's values.

    Args:
        graph: The fp32 network.
        constants: Values of weights and of constants that are nodes, by name.
    """
    known = dict(constants)
    bounds = Bounds(graph, known, {*constants, *graph.weights})
    for name, values in constants.items():
        # A bias has both signs: only what is positive everywhere keeps a value from 0.
        if values.dtype == np.float32 and values.size and values.min() > 0:
            bounds.least[name] = float(values.min())
    for node in graph.nodes:
        if not node.input:
            bounds.fixed.update(node.output)
            continue
        with np.errstate(all="ignore"):
            if node.op_type in _FOLDED and all(name in known for name in _operands(node)):
                known[node.output[0]] = _FOLDED[node.op_type](*map(known.get, _operands(node)))
            for state, value in ((bounds.least, _least), (bounds.most, _most)):
                if 0 < (bound := float(value(bounds, node))) < np.inf:
                    state |= dict.fromkeys(node.output, bound)
        if bounds.fixed.issuperset(_operands(node)):
            bounds.fixed.update(node.output)  # such as a constant that is cast
    return bounds


_FOLDED: Mapping[str, Callable[..., Any]] = {
    "Add": np.add,
    "Cast": np.asarray,
    "CastLike": np.asarray,
    "Div": np.divide,
    "Identity": np.asarray,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
}
"""Operators that an unsimplified export computes constants with, such as the exponent ``1 / p``."""


def _operands(node: onnx.NodeProto) -> list[str]:
    """Returns the inputs that a node computes with, without the one that states a type."""
    return [*node.input][:1] if node.op_type == "CastLike" else [*node.input]


def _least(bounds: Bounds, node: onnx.NodeProto) -> float | np.float64:
    """Returns the least magnitude of a node's result, 0 if nothing bounds it."""
    values = [bounds.least.get(name, 0.0) for name in node.input if name]
    first, kind = values[0], node.op_type
    if kind in MOVES or kind in POOLS:
        return first
    if kind in _MERGED:
        return _MERGED[kind](values)
    if kind == "Clip":
        return _clipped(bounds, node, first)
    if kind == "Mul":
        return _scaled(bounds, node, bounds.least, 0)
    if kind in PRODUCTS:
        return _summed(bounds, node)
    if kind == "Div":
        by = node.input[1]
        if by in bounds.fixed:
            return first / (bounds.magnitudes(by)[1] or np.inf)
        return first if by not in bounds.most else first / bounds.most[by]
    if kind == "Reciprocal":
        return 1 / bounds.most.get(node.input[0], np.inf)
    return _power(bounds, node, first)


def _most(bounds: Bounds, node: onnx.NodeProto) -> float | np.float64:
    """Returns the magnitude of a node's result if it is a reciprocal, 0 if not."""
    values = [bounds.most.get(name, 0.0) for name in node.input if name]
    first, kind = values[0], node.op_type
    if kind in MOVES or kind in POOLS:
        return first
    if kind in ("Add", "Concat", "Max", "Sub", "Sum", "Where"):
        return max(values)
    if kind == "Mul":
        return _scaled(bounds, node, bounds.most, 1)
    divisor = bounds.divisor(node)
    least = bounds.least.get(divisor or "", np.inf)
    if kind == "Reciprocal":
        return 1 / least
    if kind == "Div":
        if node.input[1] in bounds.fixed:
            return first / (bounds.magnitudes(node.input[1])[0] or np.inf)
        return bounds.magnitudes(node.input[0])[1] / least if node.input[0] in bounds.fixed else 0.0
    if kind == "Pow" and divisor is not None:
        return np.float64(least) ** bounds.exponent(node)
    return _power(bounds, node, first)


def _least_positive(values: Iterable[float]) -> float:
    return min((value for value in values if value > 0), default=0.0)


_MERGED: Mapping[str, Callable[[list[float]], float]] = {
    "Add": sum,
    "Sum": sum,
    "Max": max,
    "Min": min,
    "Concat": _least_positive,
    "Where": lambda values: _least_positive(values[1:]),
}
"""Operators of several inputs, and the least magnitude of their result from those of the inputs."""


def _clipped(bounds: Bounds, node: onnx.NodeProto, least: float) -> float:
    ends = [bounds.least.get(name, 0.0) for name in node.input[1:]]
    least = max([least, *ends[:1]])
    return min(least, ends[1]) if len(ends) > 1 and ends[1] > 0 else least


def _scaled(bounds: Bounds, node: onnx.NodeProto, state: Mapping[str, float], end: int) -> float:
    """Returns the product of two bounds, or of one and a constant's least or largest magnitude."""
    result = 1.0
    for name in node.input:
        result *= bounds.magnitudes(name)[end] if name in bounds.fixed else state.get(name, 0.0)
    return result


def _summed(bounds: Bounds, node: onnx.NodeProto) -> float:
    """Returns the least sum of products, if no product is negative."""
    factors = [
        bounds.least.get(name, 0.0) if name not in bounds.fixed else _least_weights(bounds, node, n)
        for n, name in enumerate(node.input)
        if node.op_type == "Einsum" or n < 2
    ]
    added = node.input[2] if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 else ""
    return float(np.prod(factors)) + bounds.least.get(added, 0.0)


def _least_weights(bounds: Bounds, node: onnx.NodeProto, index: int) -> float:
    """Returns the least sum of the weights of an output, 0 if they have both signs."""
    weights = bounds.constants.get(node.input[index])
    if weights is None or not weights.size or weights.min() < 0 < weights.max() or not weights.ndim:
        return 0.0
    sizes = np.abs(weights)
    if node.op_type == "Einsum":
        return _least_positive(map(float, sizes.flat))
    if node.op_type == "Conv":
        return float(sizes.reshape(len(sizes), -1).sum(1).min())
    option = ("transA", "transB")[index]
    flipped = any(given.name == option and given.i for given in node.attribute)
    last = sizes.ndim == 1 or (index == 0) != flipped
    return float(sizes.sum(-1 if last else -2).min())


def _power(bounds: Bounds, node: onnx.NodeProto, bound: float) -> float | np.float64:
    """Returns the power of a bound, 0 if a node is no power with a positive exponent."""
    exponent = bounds.exponent(node)
    return np.float64(bound) ** exponent if exponent > 0 else 0.0
