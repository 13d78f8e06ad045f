"""Finds arithmetic that a narrow type breaks on images that no calibration set holds.

``x / max(|x|, 1e-12)`` is 0 for ``x = 0``, but in fp16 the bound is 0, too, and the result NaN: a
single flat image shows it. A constant like that has to reach the division in fp32, so every
operator between the two stays in fp32, and so does what multiplies with ``1 / 1e-12``. The same is
true of constants that vanish only together, ``(x + 1e-4) ** 2``, and of squares that are summed:
they leave the range of fp16 long before the sum's root does. Quantising takes any such constant
for 0, whatever its size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from builders.precision.bounds import MOVES, POOLS, Bounds, bounds_of
from builders.precision.graph import Graph
from builders.recipe.operators import IN_FP32
from zoo.schema.precisions import PRECISION_FACTS, Precision

if TYPE_CHECKING:
    import onnx

_CARRY = frozenset({
    "Abs", "Add", "Cast", "Clip", "Concat", "ConstantOfShape", "Expand", "Flatten", "Gather",
    "Identity", "Max", "Min", "Neg", "Reshape", "Slice", "Sqrt", "Squeeze", "Sub", "Sum", "Tile",
    "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""Operators whose result may be as small as their smallest input."""

_SUMS = frozenset(name for name in IN_FP32 if name.startswith("Reduce")) | {"GlobalAveragePool"}


def constants_of(graph: Graph) -> dict[str, npt.NDArray[Any]]:
    """Returns the values of weights and of constants that are nodes, by name."""
    from onnx import numpy_helper

    constants = {name: numpy_helper.to_array(tensor) for name, tensor in graph.weights.items()}
    for node in graph.nodes:
        if node.op_type in ("Constant", "ConstantOfShape"):
            for attribute in node.attribute:
                if attribute.name == "value":
                    constants[node.output[0]] = numpy_helper.to_array(attribute.t)
                elif attribute.name in ("value_float", "value_floats"):
                    values = attribute.floats or [attribute.f]
                    constants[node.output[0]] = np.array(values, np.float32)
    return constants


def vanishing(values: npt.NDArray[Any], low: Precision) -> float | None:
    """Returns the smallest of some constants that a type has no normal number for, None if none.

    Below the smallest normal number a type loses its precision bit by bit, and kernels may take
    such a number for 0.
    """
    if values.dtype != np.float32 or not values.size:
        return None
    magnitudes = np.abs(values)
    small = magnitudes[(magnitudes > 0) & (magnitudes < _least_normal(low))]
    return float(small.min()) if small.size else None


def _least_normal(low: Precision) -> float:
    """Returns the least normal number of a type."""
    name = PRECISION_FACTS[low].torch
    kind = np.dtype(getattr(ml_dtypes, name, name))
    return float(ml_dtypes.finfo(kind).smallest_normal)  # type: ignore[no-untyped-call]


def guarded(graph: Graph, low: Precision) -> dict[str, str]:
    """Returns the nodes that compute in fp32 because of what a flat image does to them.

    Args:
        graph: The fp32 network, with a name for every node.
        low: Type of the remaining layers.

    Returns:
        Node name to reason.
    """
    constants = constants_of(graph)
    bounds = bounds_of(graph, constants)
    return {
        **_roots(graph, bounds, low),
        **_vanishing_together(graph, bounds, low),
        **_squares(graph),
        **_Guards(graph, constants, low).find(),
    }


def guarding_values(graph: Graph) -> set[str]:
    """Returns the values between a positive constant and the division that it guards.

    Quantising rounds to steps that are far larger than any such constant, so that the division
    would be one by 0.

    Args:
        graph: The fp32 network.
    """
    bounds = bounds_of(graph, constants_of(graph))
    ends = [name for node in graph.nodes if (name := bounds.divisor(node)) in bounds.least]
    return _behind([name for name in ends if name is not None], bounds, bounds.least.keys())


def _behind(ends: Iterable[str], bounds: Bounds, bounded: Collection[str]) -> set[str]:
    """Returns values and those before them that are bounded, too."""
    found: set[str] = set()
    waiting = list(ends)
    while waiting:
        name = waiting.pop()
        if name in found or name not in bounded:
            continue
        found.add(name)
        if (producer := bounds.graph.producer.get(name)) is not None:
            waiting += (used for used in producer.input if not bounds.negligible(used, producer))
    return found


def _vanishing_together(graph: Graph, bounds: Bounds, low: Precision) -> dict[str, str]:
    """Returns nodes whose values a type rounds to 0, or overflows with, before a division.

    Sums, products and powers of constants are as fatal as the constants themselves.
    """
    least, most = _least_normal(low), PRECISION_FACTS[low].largest
    lost = {name: value for name, value in bounds.least.items() if value < least}
    lost |= {name: 1 / value for name, value in bounds.most.items() if value > most}
    found: dict[str, str] = {}
    for node in graph.nodes:
        ends = {name for name in (bounds.divisor(node),) if name in bounds.least}
        if node.op_type in ("Div", "MatMul", "Mul", "Reciprocal"):
            ends |= {name for name in node.input if bounds.most.get(name, 0.0) > most}
        path = _behind(ends, bounds, bounds.least.keys() | bounds.most.keys())
        if not (values := path & lost.keys()):
            continue
        value = min(lost[name] for name in values)
        reason = f"{value:.3g} is 0 in {low} and guards a division"
        if not values.isdisjoint(node.input):
            found[node.name] = reason
        for name in path & graph.producer.keys():
            before = graph.producer[name]
            if not values.isdisjoint((name, *before.input)):
                found[before.name] = reason
    return found


def _roots(graph: Graph, bounds: Bounds, low: Precision) -> dict[str, str]:
    """Returns what lies between a power of a value and the root of it, or the division by it.

    The third power of 0.001 is 0 in fp16, so that its root is no length. What is added to a power
    may be large enough to make that harmless.
    """
    least = _least_normal(low)
    if least <= float(np.finfo(np.float32).smallest_normal):
        return {}
    degrees: dict[str, float] = {}
    found: dict[str, str] = {}
    for node in graph.nodes:
        divisor = bounds.divisor(node)
        is_root = 0 < bounds.exponent(node) < 1 and node.input[0] in degrees
        if is_root or divisor in degrees:
            start = node.input[0] if divisor is None else divisor
            reason = f"powers that are 0 in {low} are on the way to a root or a division"
            found[node.name] = reason
            for name in _behind([start], bounds, degrees):
                found[graph.producer[name].name] = reason
        degree = _degree(node, degrees, bounds)
        if degree > 1:
            small = [name for name in node.output if bounds.least.get(name, 0.0) < least]
            degrees |= dict.fromkeys(small, degree)
    return found


def _degree(node: onnx.NodeProto, degrees: Mapping[str, float], bounds: Bounds) -> float:
    """Returns the power of the data that a node's result is; 1 for any that is none."""
    free = [name for name in node.input if name and name not in bounds.fixed]
    if not free:
        return 1.0
    values = [degrees.get(name, 1.0) for name in free]
    if node.op_type == "Mul" and (max(values) > 1 or len(set(free)) < len(free)):
        return sum(values)
    if (exponent := bounds.exponent(node)) > 0:
        return values[0] * exponent
    scales = node.op_type == "Div" and node.input[1] in bounds.fixed
    if scales or node.op_type in _CARRY | MOVES | POOLS or bounds.sums_alike(node):
        return min(values)  # what is added to a power, such as a shortcut, ends it
    return 1.0


class _Guards:
    """Follows constants that a type rounds to 0 to the division that they guard."""

    def __init__(
        self, graph: Graph, constants: Mapping[str, npt.NDArray[Any]], low: Precision
    ) -> None:
        self._graph, self._constants, self._low = graph, constants, low
        self._small = {
            name: value
            for name, array in constants.items()
            if (value := vanishing(array, low)) is not None
        }
        self._huge: dict[str, float] = {}
        self._fixed = {*constants, *graph.weights}

    def find(self) -> dict[str, str]:
        """Returns the nodes from each such constant to the division, and the reason."""
        found: dict[str, str] = {}
        for node in self._graph.nodes:
            for value in self._divisors(node):
                reason = f"{value:.3g} is 0 in {self._low} and guards a division"
                found |= dict.fromkeys(self._path(node), reason)
            self._carry(node)
            if node.input and self._fixed.issuperset(node.input):
                self._fixed.update(node.output)  # such as a constant that is cast
        return found

    def _divisors(self, node: onnx.NodeProto) -> Iterator[float]:
        """Yields the small constants that a node divides by or takes the logarithm of."""
        small = self._small
        inputs = node.input
        if node.op_type == "Div" and inputs[1] in small:
            yield small[inputs[1]]
            if inputs[0] in self._fixed:
                self._huge[node.output[0]] = small[inputs[1]]
        elif node.op_type in ("Reciprocal", "Log") and inputs[0] in small:
            yield small[inputs[0]]
            if node.op_type == "Reciprocal":
                self._huge[node.output[0]] = small[inputs[0]]
        elif node.op_type == "Pow" and inputs[0] in small and self._exponent(node) < 0:
            yield small[inputs[0]]
            self._huge[node.output[0]] = small[inputs[0]]
        elif node.op_type in ("Mul", "Div"):
            yield from (self._huge[name] for name in inputs if name in self._huge)

    def _carry(self, node: onnx.NodeProto) -> None:
        """Marks a node's results where they may be as small, or as large, as an input."""
        if node.op_type in _CARRY:
            for state in (self._small, self._huge):
                inputs = [state[name] for name in node.input if name in state]
                if inputs:
                    state |= dict.fromkeys(node.output, min(inputs))
        elif node.op_type == "Pow" and self._exponent(node) > 0:
            for state in (self._small, self._huge):
                if node.input[0] in state:
                    state[node.output[0]] = state[node.input[0]]
        elif node.op_type in ("Mul", "Div"):
            self._scale(node)

    def _scale(self, node: onnx.NodeProto) -> None:
        """A small value stays small when a constant scales it; a small weight is none.

        A huge one stays huge, too: only what is 0 on a flat image brings it back.
        """
        pairs = zip(node.input, reversed(node.input), strict=True)
        for name, other in pairs if node.op_type == "Mul" else [tuple(node.input)]:
            for state in (self._small, self._huge):
                if name in state and name not in self._fixed and other in self._fixed:
                    state[node.output[0]] = state[name]

    def _exponent(self, node: onnx.NodeProto) -> float:
        """Returns the largest exponent of a ``Pow``; 0 if it is computed."""
        values = self._constants.get(node.input[1])
        return 0.0 if values is None or not values.size else float(values.max())

    def _path(self, node: onnx.NodeProto) -> set[str]:
        """Returns a node and all before it that a small or large value passes through."""
        names: set[str] = set()
        waiting = [node]
        while waiting:
            current = waiting.pop()
            if current.name in names:
                continue
            names.add(current.name)
            for name in current.input:
                producer = self._graph.producer.get(name)
                if producer is not None and (name in self._small or name in self._huge):
                    waiting.append(producer)
        return names


def _squares(graph: Graph) -> dict[str, str]:
    """Returns squares that are summed, and the differences that are squared for a variance."""
    found: dict[str, str] = {}
    sums = [node for node in graph.nodes if node.op_type in _SUMS]
    means = {node.output[0] for node in sums}
    for node in sums:
        square = graph.producer.get(node.input[0])
        if square is None or not _is_square(graph, square):
            continue
        found[square.name] = "its squares are summed"
        base = graph.producer.get(square.input[0])
        if base is not None and base.op_type == "Sub" and _uses(base.input, means):
            found[base.name] = "its distances from the mean are squared and summed"
    return found


def _is_square(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.op_type == "Pow":
        return graph.constant(node.input[1])
    return bool(node.op_type == "Mul" and node.input[0] == node.input[1])


def _uses(inputs: Collection[str], values: Collection[str]) -> bool:
    return any(name in values for name in inputs)
