"""Q/DQ: where an int8 network quantises, as its runtime fuses it.

Quantised are the inputs of convolutions and matrix products with weights: activations per tensor,
weights per output channel and symmetric, biases never. Products of two activations (attention) and
the small convolutions on pooled maps (squeeze and excitation) stay as they are.

TensorRT fuses a convolution with the addition and the activation that follow it. Where a
convolution's result is added to a shortcut, the shortcut is quantised and the result is not, so
that all of it is one kernel, int8 in and out. Activations are symmetric, of type int8.

ONNX Runtime runs an operator in int8 only between Q/DQ on both sides: there results are quantised
too, behind an activation that quantising absorbs, and for whoever takes them. All activations are
uint8 there: it fuses one type alone. So are weights, around 128: of uint8 times int8, a CPU without
VNNI adds two products in 16 bits and clips them, and an engine is for every CPU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from builders.precision.graph import Graph, module_of
from builders.precision.ranges import Scale, weight_scales
from builders.precision.trt86_clip_workaround import drop_upper_ends
from zoo.schema.targets import Placing

if TYPE_CHECKING:
    import onnx

Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """A node that computes in int8.

    Attributes:
        node: Its name.
        module: What people call it, ``layer1.0.conv1``.
        activation: The value that it takes.
        weight: Its weights.
        axis: Of the weights' output channels.
        result: The value that it gives, where that is quantised too.
        work: Multiplications per image.
    """

    node: str
    module: str
    activation: str
    weight: str
    axis: int
    result: str | None
    work: int


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """An addition that takes a quantised shortcut beside a convolution's result.

    Attributes:
        node: The addition's name.
        module: What people call it.
        activation: The shortcut.
        main: Node of the convolution.
    """

    node: str
    module: str
    activation: str
    main: str


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a network quantises.

    Attributes:
        runtime: Which fuses it.
        operators: What computes in int8.
        shortcuts: For TensorRT.
    """

    runtime: Placing
    operators: tuple[Quantised, ...]
    shortcuts: tuple[Shortcut, ...] = ()

    @property
    def activations(self) -> set[str]:
        """The values whose ranges are needed."""
        taken = {one.activation for one in self.operators}
        given = {one.result for one in self.operators if one.result is not None}
        return taken | given | {one.activation for one in self.shortcuts}

    def without(self, kept: Collection[str]) -> Placement:
        """Returns the placement with some operators and shortcuts left as they are.

        Args:
            kept: Names of their nodes.
        """
        operators = tuple(one for one in self.operators if one.node not in kept)
        names = {one.node for one in operators}
        shortcuts = tuple(
            one for one in self.shortcuts if one.main in names and one.node not in kept
        )
        return Placement(runtime=self.runtime, operators=operators, shortcuts=shortcuts)


def is_unsigned(runtime: Placing) -> bool:
    """Whether a runtime's fast kernels take uint8."""
    match runtime:
        case Placing.ONNXRUNTIME:
            return True
        case Placing.TENSORRT:
            return False
        case _:
            assert_never(runtime)


def _fuses_shortcuts(runtime: Placing) -> bool:
    """Whether a runtime adds a quantised shortcut inside the convolution before it."""
    match runtime:
        case Placing.TENSORRT:
            return True
        case Placing.ONNXRUNTIME:
            return False
        case _:
            assert_never(runtime)


def _quantises_results(runtime: Placing) -> bool:
    """Whether an operator runs in int8 only where its result is quantised as well."""
    match runtime:
        case Placing.ONNXRUNTIME:
            return True
        case Placing.TENSORRT:
            return False
        case _:
            assert_never(runtime)


def _takes_clips_wrong(runtime: Placing) -> bool:
    """Whether a version of the runtime errs at a Clip that ends where int8 saturates."""
    match runtime:
        case Placing.TENSORRT:
            return True
        case Placing.ONNXRUNTIME:
            return False
        case _:
            assert_never(runtime)


def place(model: onnx.ModelProto, runtime: Placing) -> Placement:
    """Finds where a network quantises.

    Args:
        model: fp32, with the shape of every value and a name for every node.
        runtime: Which fuses it.
    """
    graph = Graph(model)
    operators = tuple(found for node in graph.nodes if (found := _quantised(graph, node, runtime)))
    if not _fuses_shortcuts(runtime):
        return Placement(runtime=runtime, operators=operators)
    named = {one.node for one in operators}
    depths = graph.depths()
    shortcuts = []
    for node in graph.nodes:
        if node.op_type != "Add" or any(graph.constant(name) for name in node.input):
            continue
        # The longer way is the one whose last convolution runs last, and takes the sum with it.
        main, shortcut = sorted(node.input, key=lambda name: depths.get(name, 0), reverse=True)
        made_by = graph.producer.get(main)
        if made_by is None or made_by.op_type != "Conv" or made_by.name not in named:
            continue
        if len(graph.consumers[main]) == 1:
            name = f"shortcut past {module_of(made_by)}"
            shortcuts.append(
                Shortcut(node=node.name, module=name, activation=shortcut, main=made_by.name)
            )
    return Placement(runtime=runtime, operators=operators, shortcuts=tuple(shortcuts))


def quantise(
    model: onnx.ModelProto, placement: Placement, scales: Mapping[str, Scale]
) -> onnx.ModelProto:
    """Returns a copy with Q/DQ pairs.

    Args:
        model: fp32; stays as it is.
        placement: Where they go.
        scales: Of every activation of the placement.
    """
    import onnx

    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    nodes = {node.name: node for node in graph.node}
    pairs = _Pairs(graph, scales, unsigned=is_unsigned(placement.runtime))
    for one in placement.operators:
        node = nodes[one.node]
        node.input[0] = pairs.activation(one.activation)
        node.input[1] = pairs.weight(one.weight, one.axis)
        if one.result is not None:
            pairs.activation(one.result)
    for shortcut in placement.shortcuts:
        node = nodes[shortcut.node]
        index = list(node.input).index(shortcut.activation)
        node.input[index] = pairs.activation(shortcut.activation)
    if _quantises_results(placement.runtime):
        _feed_all(graph, pairs)
    ordered = [node for made in pairs.on_weights.values() for node in made]
    for value in graph.input:
        ordered += pairs.behind.get(value.name, [])
    for node in graph.node:
        ordered.append(node)
        for name in node.output:
            ordered += pairs.behind.get(name, [])
    del graph.node[:]
    graph.node.extend(ordered)
    if _takes_clips_wrong(placement.runtime):
        drop_upper_ends(quantised)
    return quantised


def _feed_all(graph: onnx.GraphProto, pairs: _Pairs) -> None:
    """Feeds a value that has a Q/DQ pair through it wherever it is read."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in pairs.behind:
                node.input[index] = pairs.activation(name)


class _Pairs:
    """The Q/DQ pairs of a graph: one for each value, however many take it.

    Args:
        graph: Gets their scales and the types of what they give; not the pairs themselves.
        scales: Of activations.
        unsigned: Whether weights are uint8.

    Attributes:
        behind: Pairs by the activation that they belong behind.
        on_weights: Pairs by the weights that they quantise.
    """

    def __init__(
        self, graph: onnx.GraphProto, scales: Mapping[str, Scale], *, unsigned: bool
    ) -> None:
        self._graph = graph
        self._scales = scales
        self._unsigned = unsigned
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        values = (*graph.input, *graph.value_info)
        self._types = {value.name: value.type.tensor_type for value in values}
        self.behind: dict[str, list[onnx.NodeProto]] = {}
        self.on_weights: dict[str, list[onnx.NodeProto]] = {}

    def activation(self, value: str) -> str:
        """Returns the name of an activation once it is dequantised."""
        if value not in self.behind:
            shape = tuple(dim.dim_value for dim in self._types[value].shape.dim)
            self.behind[value] = self._pair(value, self._scales[value].arrays(), shape)
        return f"{value}_dequantised"

    def weight(self, name: str, axis: int) -> str:
        """Returns the name of weights once they are dequantised.

        Args:
            name: Of the weights.
            axis: Of their output channels.
        """
        from onnx import numpy_helper

        if name not in self.on_weights:
            values = numpy_helper.to_array(self._weights[name])
            steps = weight_scales(values, axis)
            kind, middle = (np.uint8, 128) if self._unsigned else (np.int8, 0)
            scale = steps, np.full(steps.shape, middle, kind)
            self.on_weights[name] = self._pair(name, scale, values.shape, axis)
        return f"{name}_dequantised"

    def _pair(
        self, value: str, scale: Arrays, shape: tuple[int, ...], axis: int | None = None
    ) -> list[onnx.NodeProto]:
        from onnx import TensorProto, helper, numpy_helper

        step, zero = scale
        inputs = [f"{value}_scale", f"{value}_zero_point"]
        for name, array in zip(inputs, (step, zero), strict=True):
            self._graph.initializer.append(numpy_helper.from_array(array, name))
        attributes = {} if axis is None else {"axis": axis}
        low, back = f"{value}_quantised", f"{value}_dequantised"
        dims: list[int | str] = [size or "batch" for size in shape]
        for name, kind in (
            (low, helper.np_dtype_to_tensor_dtype(zero.dtype)),
            (back, TensorProto.FLOAT),
        ):
            self._graph.value_info.append(helper.make_tensor_value_info(name, kind, dims))
        return [
            helper.make_node("QuantizeLinear", [value, *inputs], [low], f"q_{value}", **attributes),
            helper.make_node(
                "DequantizeLinear", [low, *inputs], [back], f"dq_{value}", **attributes
            ),
        ]


def _quantised(graph: Graph, node: onnx.NodeProto, runtime: Placing) -> Quantised | None:
    """Returns how a node is quantised, None where it is not."""
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[0] not in graph.shapes:
        return None
    if node.input[1] not in graph.weights or graph.constant(node.input[0]):
        return None
    weight = graph.weights[node.input[1]]
    out, taken = graph.shapes[node.output[0]], graph.shapes[node.input[0]]
    if node.op_type == "Conv":
        if all(size == 1 for size in taken[2:]):
            return None  # squeeze and excitation: next to no work, and its numbers gate the rest
        axis, positions = 0, int(np.prod(out[2:]))
        work = positions * int(np.prod(weight.dims))
    else:
        transposed = any(one.name == "transB" and one.i for one in node.attribute)
        axis = 0 if node.op_type == "Gemm" and transposed else len(weight.dims) - 1
        work = int(np.prod([size or 1 for size in taken])) * weight.dims[axis]
    return Quantised(
        node=node.name,
        module=module_of(node),
        activation=node.input[0],
        weight=node.input[1],
        axis=axis,
        result=_result(graph, node.output[0]) if _quantises_results(runtime) else None,
        work=work,
    )


def _result(graph: Graph, value: str) -> str | None:
    """Returns the value behind the activation that quantising absorbs; None for features."""
    [taker] = graph.consumers[value] if len(graph.consumers[value]) == 1 else [None]
    if taker is not None and taker.op_type in ("Relu", "Clip"):
        value = taker.output[0]
    return None if value in graph.outputs else value
