"""Noise: the error in each operator's result when its own inputs are rounded, on real images.

A copy of the network runs every operator twice, on its inputs and on its rounded inputs, and
outputs the energy of the difference. One run ranks all operators.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from builders.precision.graph import Graph
from builders.precision.qdq import Placement, Quantised, Shortcut
from builders.precision.ranges import Arrays, Levels, Scale, weight_scales
from zoo.runtime.onnxruntime import session_options
from zoo.schema.precisions import PRECISION_FACTS, Precision, is_quantised

if TYPE_CHECKING:
    import onnx


def rank_operators(
    model: onnx.ModelProto,
    placement: Placement,
    rounding: Precision,
    batches: Iterable[npt.NDArray[np.float32]],
    scales: Mapping[str, Scale] | None = None,
) -> list[Quantised | Shortcut]:
    """Orders the operators of a network by the error that rounding causes, largest first.

    Args:
        model: The fp32 network, with a name for every node.
        placement: The operators.
        rounding: Precision that inputs and weights are rounded to.
        batches: Normalised images, ``(N, 3, H, W)`` each.
        scales: For a quantised precision, the scales of the activations; shortcuts are then ranked
            too.

    Returns:
        The operators by the energy of their noise relative to the energy of the sum that their
        results are added to.
    """
    import onnxruntime

    probe = _Probe(model, rounding, scales or {}).build(placement)
    options = session_options()
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    # An optimiser would remove pairs of casts, which are the rounding.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    del probe
    ranked: list[Quantised | Shortcut] = [*placement.operators]
    if is_quantised(rounding):
        ranked += placement.shortcuts
    outputs = [value.name for value in session.get_outputs()]
    names = [name for name in outputs if name.startswith("n:")]
    totals = np.zeros(len(names))
    (image,) = session.get_inputs()
    for batch in batches:
        totals += np.array(session.run(names, {image.name: batch}), np.float64)
    energy = dict(zip(names, totals, strict=True))
    noise = np.array(
        [
            energy[f"n:noise:{name}"] / max(energy[f"n:signal:{name}"], 1e-30)
            + energy.get(f"n:noise:result of {name}", 0.0)
            / max(energy.get(f"n:signal:result of {name}", 1.0), 1e-30)
            for name in (operator.node for operator in ranked)
        ]
    )
    return [ranked[index] for index in np.argsort(-noise, kind="stable")]


class _Probe:
    """Builds a network that also runs every operator on its rounded inputs and compares.

    Args:
        model: The fp32 network, with a name for every node.
        rounding: Precision that inputs and weights are rounded to.
        scales: Scales of the activations, for a quantised precision.
    """

    def __init__(
        self, model: onnx.ModelProto, rounding: Precision, scales: Mapping[str, Scale]
    ) -> None:
        import onnx

        self._rounding, self._scales = rounding, scales
        self._quantised = is_quantised(rounding)
        self._copy = onnx.ModelProto()
        self._copy.CopyFrom(model)
        self._graph = self._copy.graph
        self._nodes = {node.name: node for node in self._graph.node}
        self._weights = {tensor.name: tensor for tensor in self._graph.initializer}
        self._consumers = Graph(model).consumers
        self._added: list[onnx.NodeProto] = []
        self._rounded: set[str] = set()

    def build(self, placement: Placement) -> onnx.ModelProto:
        """Returns the network, whose outputs are the noise and signal energy of each operator."""
        for operator in placement.operators:
            self._add(operator)
        for shortcut in placement.shortcuts if self._quantised else ():
            value, total = shortcut.activation, self._nodes[shortcut.node].output[0]
            self._compare(shortcut.node, value, self._round_activation(value), total)
        self._insert_added()
        return self._copy

    def _add(self, operator: Quantised) -> None:
        import onnx
        from onnx import numpy_helper

        name = operator.node
        of_weight = None
        if self._quantised:
            weight = numpy_helper.to_array(self._weights[operator.weight])
            levels = Levels.of(self._rounding, unsigned=False)
            of_weight = levels.arrays(weight_scales(weight, operator.axis, levels.largest))
        rounded = onnx.NodeProto()
        rounded.CopyFrom(self._nodes[name])
        rounded.name = f"n:{name}"
        rounded.input[0] = self._round_activation(operator.activation)
        rounded.input[1] = self._round(operator.weight, of_weight, operator.axis)
        plain, rounded.output[0] = self._nodes[name].output[0], f"n:again:{name}"
        self._added.append(rounded)
        self._compare(name, plain, rounded.output[0], _sum_of(self._consumers, plain))
        if operator.result is not None:
            result = operator.result
            total = _sum_of(self._consumers, result)
            self._compare(f"result of {name}", result, self._round_activation(result), total)

    def _round_activation(self, value: str) -> str:
        return self._round(value, self._scales[value].arrays() if self._quantised else None)

    def _round(self, value: str, scale: Arrays | None, axis: int | None = None) -> str:
        from onnx import TensorProto, numpy_helper

        result, between = f"n:rounded:{value}", f"n:low:{value}"
        if value in self._rounded:
            return result
        self._rounded.add(value)
        if scale is None:
            low = TensorProto.DataType.Value(PRECISION_FACTS[self._rounding].onnx)
            self._make("Cast", [value], between, to=low)
            self._make("Cast", [between], result, to=TensorProto.FLOAT)
            return result
        names = [f"n:scale:{value}", f"n:zero:{value}"]
        self._graph.initializer.extend(map(numpy_helper.from_array, scale, names))
        extra = {} if axis is None else {"axis": axis}
        self._make("QuantizeLinear", [value, *names], between, **extra)
        self._make("DequantizeLinear", [between, *names], result, **extra)
        return result

    def _compare(self, node: str, plain: str, noisy: str, total: str) -> None:
        """Adds outputs with the energy of the difference of two values, and of a third value."""
        from onnx import TensorProto, helper

        difference = f"n:difference:{node}"
        self._make("Sub", [plain, noisy], difference)
        for part, value in (("noise", difference), ("signal", total)):
            name = f"n:{part}:{node}"
            self._make("ReduceSumSquare", [value], name, keepdims=0)
            energy = helper.make_tensor_value_info(name, TensorProto.FLOAT, [])
            self._graph.output.append(energy)

    def _make(self, kind: str, inputs: Sequence[str], output: str, **attributes: int) -> None:
        from onnx import helper

        self._added.append(helper.make_node(kind, inputs, [output], **attributes))

    def _insert_added(self) -> None:
        """Inserts each added node right after its inputs: ONNX Runtime runs in that order."""
        plain = list(self._graph.node)
        after: dict[int, list[onnx.NodeProto]] = defaultdict(list)
        index_of = {name: index for index, node in enumerate(plain) for name in node.output}
        for node in self._added:
            index = max((index_of.get(name, -1) for name in node.input), default=-1)
            index_of |= dict.fromkeys(node.output, index)
            after[index].append(node)
        del self._graph.node[:]
        self._graph.node.extend(after[-1])
        for index, node in enumerate(plain):
            self._graph.node.append(node)
            self._graph.node.extend(after[index])


def _sum_of(consumers: Mapping[str, list[onnx.NodeProto]], value: str) -> str:
    """Returns the sum that a value is added to: beside a strong shortcut, noise matters less."""
    while [node.op_type for node in consumers[value]] == ["Add"]:
        value = consumers[value][0].output[0]
    return value
