"""Q/DQ: places the quantisation of an int8 network to suit the fusions of its runtime.

The inputs of convolutions and matrix products with weights are quantised: activations per tensor,
weights per output channel and symmetrically, biases never. Products of two activations (attention)
and the small convolutions on pooled maps (squeeze and excitation) are not quantised.

TensorRT fuses a convolution with the addition and the activation that follow it. If a convolution's
result is added to a shortcut, the shortcut is quantised and the result is not, so that all of it
becomes one kernel, int8 in and out. Activations are symmetric, of type int8.

ONNX Runtime runs an operator in int8 only between Q/DQ pairs on both sides. Results are therefore
quantised too, after an activation function that quantising absorbs, and for all their consumers.
All activations are uint8, because it fuses one type only. Weights are uint8 as well, centred on
128: multiplying uint8 by int8, a CPU without VNNI adds two products in 16 bits with saturation, and
an engine must run on every CPU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import assert_never

from builders.precision.graph import Graph, module_of
from builders.precision.ranges import Arrays, Levels, Scale, weight_scales
from builders.precision.trt86_clip_workaround import drop_upper_ends
from zoo.schema.precisions import PRECISION_FACTS
from zoo.schema.targets import Placing, Precision

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """A node that computes on quantised inputs.

    Attributes:
        node: Name of the node.
        module: PyTorch module, ``layer1.0.conv1``.
        activation: Input value.
        weight: Name of the weights.
        axis: Axis of the weights' output channels.
        result: Output value if it is quantised too, else None.
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
    """An addition of a quantised shortcut and a convolution's result.

    Attributes:
        node: Name of the addition's node.
        module: Name for records.
        activation: Value of the shortcut.
        main: Name of the convolution's node.
    """

    node: str
    module: str
    activation: str
    main: str


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a network is quantised.

    Attributes:
        runtime: Runtime whose fusions the placement suits.
        operators: Nodes that compute on quantised inputs.
        shortcuts: Quantised shortcuts, for TensorRT.
    """

    runtime: Placing
    operators: tuple[Quantised, ...]
    shortcuts: tuple[Shortcut, ...] = ()

    @property
    def activations(self) -> set[str]:
        """Values that are quantised and so need a range."""
        inputs = {operator.activation for operator in self.operators}
        results = {operator.result for operator in self.operators if operator.result is not None}
        return inputs | results | {shortcut.activation for shortcut in self.shortcuts}

    def without(self, kept: Collection[str]) -> Placement:
        """Returns the placement without some operators and shortcuts.

        Args:
            kept: Names of nodes that stay in higher precision.
        """
        operators = tuple(operator for operator in self.operators if operator.node not in kept)
        names = {operator.node for operator in operators}
        shortcuts = tuple(
            shortcut
            for shortcut in self.shortcuts
            if shortcut.main in names and shortcut.node not in kept
        )
        return Placement(runtime=self.runtime, operators=operators, shortcuts=shortcuts)

    def without_values(self, exact: Collection[str]) -> Placement:
        """Returns the placement without what quantises some values.

        Args:
            exact: Values that stay in higher precision.
        """
        operators = {
            operator.node
            for operator in self.operators
            if operator.activation in exact or operator.result in exact
        }
        shortcuts = {item.node for item in self.shortcuts if item.activation in exact}
        return self.without(operators | shortcuts)


def is_unsigned(runtime: Placing) -> bool:
    """Returns whether a runtime's fast kernels require an unsigned type."""
    match runtime:
        case Placing.ONNXRUNTIME:
            return True
        case Placing.TENSORRT:
            return False
        case _:
            assert_never(runtime)


def _fuses_shortcuts(runtime: Placing) -> bool:
    """Returns whether a runtime fuses the addition of a quantised shortcut into a convolution."""
    match runtime:
        case Placing.TENSORRT:
            return True
        case Placing.ONNXRUNTIME:
            return False
        case _:
            assert_never(runtime)


def _quantises_results(runtime: Placing) -> bool:
    """Returns whether an operator runs quantised only if its result is quantised too."""
    match runtime:
        case Placing.ONNXRUNTIME:
            return True
        case Placing.TENSORRT:
            return False
        case _:
            assert_never(runtime)


def _needs_clip_workaround(runtime: Placing) -> bool:
    """Returns whether a version of the runtime miscomputes a Clip before quantisation."""
    match runtime:
        case Placing.TENSORRT:
            return True
        case Placing.ONNXRUNTIME:
            return False
        case _:
            assert_never(runtime)


def place(model: onnx.ModelProto, runtime: Placing) -> Placement:
    """Returns where to quantise a network.

    Args:
        model: The fp32 network, with the shape of every value and a name for every node.
        runtime: Runtime whose fusions the placement suits.
    """
    graph = Graph(model)
    operators = tuple(
        operator for node in graph.nodes if (operator := _quantised(graph, node, runtime))
    )
    if not _fuses_shortcuts(runtime):
        return Placement(runtime=runtime, operators=operators)
    quantised = {operator.node for operator in operators}
    depths = graph.depths()
    shortcuts = []
    for node in graph.nodes:
        if node.op_type != "Add" or any(graph.constant(name) for name in node.input):
            continue
        # TensorRT fuses the addition into the convolution that runs last: the deeper branch's.
        main, shortcut = sorted(node.input, key=lambda name: depths.get(name, 0), reverse=True)
        conv = graph.producer.get(main)
        if conv is None or conv.op_type != "Conv" or conv.name not in quantised:
            continue
        if len(graph.consumers[main]) == 1:
            name = f"shortcut past {module_of(conv)}"
            shortcuts.append(
                Shortcut(node=node.name, module=name, activation=shortcut, main=conv.name)
            )
    return Placement(runtime=runtime, operators=operators, shortcuts=tuple(shortcuts))


def quantise(
    model: onnx.ModelProto, placement: Placement, precision: Precision, scales: Mapping[str, Scale]
) -> onnx.ModelProto:
    """Returns a copy of a model with Q/DQ pairs inserted.

    Args:
        model: The fp32 model; it is not changed.
        placement: Where the pairs go.
        precision: Precision of the quantised values.
        scales: Scale of every activation in the placement.
    """
    import onnx

    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    for opset in quantised.opset_import:
        opset.version = max(opset.version, PRECISION_FACTS[precision].opset)
    graph = quantised.graph
    nodes = {node.name: node for node in graph.node}
    levels = Levels.of(precision, unsigned=is_unsigned(placement.runtime))
    pairs = _Pairs(graph, scales, levels)
    for operator in placement.operators:
        node = nodes[operator.node]
        node.input[0] = pairs.activation(operator.activation)
        node.input[1] = pairs.weight(operator.weight, operator.axis)
        if operator.result is not None:
            pairs.activation(operator.result)
    for shortcut in placement.shortcuts:
        node = nodes[shortcut.node]
        index = list(node.input).index(shortcut.activation)
        node.input[index] = pairs.activation(shortcut.activation)
    if _quantises_results(placement.runtime):
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name in pairs.behind:
                    node.input[index] = pairs.activation(name)
    _insert(pairs, graph)
    if _needs_clip_workaround(placement.runtime):
        drop_upper_ends(quantised, PRECISION_FACTS[precision].largest)
    return quantised


def _insert(pairs: _Pairs, graph: onnx.GraphProto) -> None:
    """Adds the pairs to the nodes of a graph, each right after the value that it quantises."""
    ordered = [node for pair in pairs.on_weights.values() for node in pair]
    for value in graph.input:
        ordered += pairs.behind.get(value.name, [])
    for node in graph.node:
        ordered.append(node)
        for name in node.output:
            ordered += pairs.behind.get(name, [])
    del graph.node[:]
    graph.node.extend(ordered)


class _Pairs:
    """The Q/DQ pairs of a graph: one per value, however many nodes use it.

    Args:
        graph: Scales and types are added to it at once, the pairs by :func:`_insert`.
        scales: Scales of activations.
        levels: The type of weights.

    Attributes:
        behind: Pairs by the activation that they quantise.
        on_weights: Pairs by the weights that they quantise.
    """

    def __init__(self, graph: onnx.GraphProto, scales: Mapping[str, Scale], levels: Levels) -> None:
        self._graph = graph
        self._scales = scales
        self._levels = levels
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        values = (*graph.input, *graph.value_info)
        self._types = {value.name: value.type.tensor_type for value in values}
        self.behind: dict[str, list[onnx.NodeProto]] = {}
        self.on_weights: dict[str, list[onnx.NodeProto]] = {}

    def activation(self, value: str) -> str:
        """Returns the name of a dequantised activation; creates its pair the first time."""
        if value not in self.behind:
            shape = tuple(dim.dim_value for dim in self._types[value].shape.dim)
            self.behind[value] = self._pair(value, self._scales[value].arrays(), shape)
        return f"{value}_dequantised"

    def weight(self, name: str, axis: int) -> str:
        """Returns the name of dequantised weights; creates their pair the first time.

        Args:
            name: Name of the weights.
            axis: Axis of their output channels.
        """
        from onnx import numpy_helper

        if name not in self.on_weights:
            values = numpy_helper.to_array(self._weights[name])
            scale = self._levels.arrays(weight_scales(values, axis, self._levels.largest))
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
    """Returns how a node is quantised; None if it is not."""
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[0] not in graph.shapes:
        return None
    if node.input[1] not in graph.weights or graph.constant(node.input[0]):
        return None
    weight = graph.weights[node.input[1]]
    output, activation = graph.shapes[node.output[0]], graph.shapes[node.input[0]]
    if node.op_type == "Conv":
        if all(size == 1 for size in activation[2:]):
            return None  # squeeze and excitation: little work, and its result scales whole channels
        axis, positions = 0, int(np.prod(output[2:]))
        work = positions * int(np.prod(weight.dims))
    else:
        transposed = any(option.name == "transB" and option.i for option in node.attribute)
        axis = 0 if node.op_type == "Gemm" and transposed else len(weight.dims) - 1
        work = int(np.prod([size or 1 for size in activation])) * weight.dims[axis]
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
    """Returns the value to quantise: after the Relu or Clip, if any; None for the features."""
    [consumer] = graph.consumers[value] if len(graph.consumers[value]) == 1 else [None]
    if consumer is not None and consumer.op_type in ("Relu", "Clip"):
        value = consumer.output[0]
    return None if value in graph.outputs else value
