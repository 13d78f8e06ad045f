"""Noise: what rounding each operator's inputs does to its own result, on real images.

A network of its own is made for it: every operator runs twice, on what it takes and on what that
rounds to, and the energy of the difference comes out. One run ranks all operators.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from builders.precision.graph import Graph
from builders.precision.qdq import Arrays, Placement, Quantised, Shortcut
from builders.precision.ranges import Scale, weight_scales
from zoo.runtime.onnxruntime import session_options

if TYPE_CHECKING:
    import onnx

Rounding = Literal["fp16", "bf16", "int8"]


def rank_operators(
    model: onnx.ModelProto,
    placement: Placement,
    rounding: Rounding,
    batches: Iterable[npt.NDArray[np.float32]],
    scales: Mapping[str, Scale] | None = None,
) -> list[Quantised | Shortcut]:
    """Orders the operators of a network by what rounding does to them, the worst first.

    Args:
        model: fp32, with a name for every node.
        placement: The operators.
        rounding: Of inputs and weights.
        batches: Ready input, ``(N, 3, H, W)`` each.
        scales: Of the activations, for int8; shortcuts are ranked among the operators then.

    Returns:
        The operators by the energy of their noise, relative to that of the sum which their results
        go into.
    """
    import onnxruntime

    probe = _probe(model, placement, rounding, scales or {})
    options = session_options()
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    # As it is: an optimiser would take a cast there and back for nothing.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    del probe
    ranked: list[Quantised | Shortcut] = [*placement.operators]
    if rounding == "int8":
        ranked += placement.shortcuts
    outputs = [value.name for value in session.get_outputs()]
    wanted = [name for name in outputs if name.startswith("n:")]
    energy = np.zeros(len(wanted))
    (image,) = session.get_inputs()
    for batch in batches:
        energy += np.array(session.run(wanted, {image.name: batch}), np.float64)
    found = dict(zip(wanted, energy, strict=True))
    noise = np.array(
        [
            found[f"n:noise:{name}"] / max(found[f"n:signal:{name}"], 1e-30)
            + found.get(f"n:noise:result of {name}", 0.0)
            / max(found.get(f"n:signal:result of {name}", 1.0), 1e-30)
            for name in (one.node for one in ranked)
        ]
    )
    return [ranked[index] for index in np.argsort(-noise, kind="stable")]


def _probe(
    model: onnx.ModelProto, placement: Placement, rounding: Rounding, scales: Mapping[str, Scale]
) -> onnx.ModelProto:
    """Returns a copy whose outputs are each operator's noise and signal."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph = probe.graph
    nodes = {node.name: node for node in graph.node}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    consumers = Graph(model).consumers
    made: list[onnx.NodeProto] = []
    behind: dict[int, list[onnx.NodeProto]] = defaultdict(list)
    rounded: set[str] = set()
    low_type = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}

    def constant(name: str, value: npt.NDArray[np.generic]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def rounds(value: str, scale: Arrays | None, axis: int | None = None) -> str:
        result = f"n:rounded:{value}"
        if value in rounded:
            return result
        rounded.add(value)
        between = f"n:low:{value}"
        if scale is None:
            made.append(helper.make_node("Cast", [value], [between], to=low_type[rounding]))
            made.append(helper.make_node("Cast", [between], [result], to=TensorProto.FLOAT))
        else:
            step, zero = scale
            inputs = [constant(f"n:scale:{value}", step), constant(f"n:zero:{value}", zero)]
            extra = {} if axis is None else {"axis": axis}
            made.append(helper.make_node("QuantizeLinear", [value, *inputs], [between], **extra))
            made.append(helper.make_node("DequantizeLinear", [between, *inputs], [result], **extra))
        return result

    def activation(value: str) -> str:
        return rounds(value, scales[value].arrays() if rounding == "int8" else None)

    def compare(node: str, plain: str, noisy: str, whole: str) -> None:
        made.append(helper.make_node("Sub", [plain, noisy], [f"n:difference:{node}"]))
        for part, value in (("noise", f"n:difference:{node}"), ("signal", whole)):
            name = f"n:{part}:{node}"
            made.append(helper.make_node("ReduceSumSquare", [value], [name], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))

    for one in placement.operators:
        of_weight = None
        if rounding == "int8":
            steps = weight_scales(numpy_helper.to_array(weights[one.weight]), one.axis)
            of_weight = steps, np.zeros(steps.shape, np.int8)
        again = onnx.NodeProto()
        again.CopyFrom(nodes[one.node])
        again.name = f"n:{one.node}"
        again.input[0] = activation(one.activation)
        again.input[1] = rounds(one.weight, of_weight, one.axis)
        plain, again.output[0] = nodes[one.node].output[0], f"n:again:{one.node}"
        made.append(again)
        compare(one.node, plain, again.output[0], _carried_to(consumers, plain))
        if one.result is not None:
            rounded_result = activation(one.result)
            total = _carried_to(consumers, one.result)
            compare(f"result of {one.node}", one.result, rounded_result, total)
    for shortcut in placement.shortcuts if rounding == "int8" else ():
        value, total = shortcut.activation, nodes[shortcut.node].output[0]
        compare(shortcut.node, value, activation(value), total)
    # Behind what they need: the order in which ONNX Runtime takes what is ready.
    plain_nodes = list(graph.node)
    del graph.node[:]
    place_of = {name: number for number, node in enumerate(plain_nodes) for name in node.output}
    for node in made:
        number = max((place_of.get(name, -1) for name in node.input), default=-1)
        place_of |= dict.fromkeys(node.output, number)
        behind[number].append(node)
    graph.node.extend(behind[-1])
    for number, node in enumerate(plain_nodes):
        graph.node.append(node)
        graph.node.extend(behind[number])
    return probe


def _carried_to(consumers: Mapping[str, list[onnx.NodeProto]], value: str) -> str:
    """Returns the sum that a value goes into: beside a strong shortcut, noise weighs less."""
    while [node.op_type for node in consumers[value]] == ["Add"]:
        value = consumers[value][0].output[0]
    return value
