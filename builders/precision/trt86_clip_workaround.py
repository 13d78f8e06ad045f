"""Works around a TensorRT 8.6 bug: a Clip whose upper bound int8 saturates at becomes a Relu.

TensorRT 8.6 moves a QuantizeLinear in front of the preceding Clip. If the Clip is not fused into an
int8 convolution, it then clips the quantised integers at the Clip's real-valued bounds: a ReLU6
leaves 6 of 127 steps. MobileNetV2, with some convolutions kept in higher precision, had a worst
cosine of 0.86, while its ONNX has 0.9956 (``docs/results/h200-trt8.6``). A Relu has no upper bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from builders.precision.graph import Graph

if TYPE_CHECKING:
    import onnx


def drop_upper_ends(model: onnx.ModelProto, largest: float) -> None:
    """Replaces each Clip by a Relu if its result is quantised and saturates at or below its bound.

    The network's results do not change.

    Args:
        model: A model with Q/DQ nodes; changed in place.
        largest: Largest quantised value.
    """
    graph = Graph(model)
    for node in graph.nodes:
        if node.op_type == "Clip" and _is_relu(graph, node, largest):
            node.op_type = "Relu"
            del node.input[1:]
    used = {name for node in graph.nodes for name in node.input}
    remaining = [
        node for node in graph.nodes if node.op_type != "Constant" or node.output[0] in used
    ]
    del model.graph.node[:]
    model.graph.node.extend(remaining)


def _is_relu(graph: Graph, clip: onnx.NodeProto, largest: float) -> bool:
    """Returns whether a Relu in place of a Clip gives every consumer the same numbers."""
    low, high = (_number(graph, name) for name in (*clip.input, "", "")[1:3])
    consumers = graph.consumers[clip.output[0]]
    if low != 0 or high is None or clip.output[0] in graph.outputs or not consumers:
        return False
    for node in consumers:
        step = _number(graph, node.input[1]) if node.op_type == "QuantizeLinear" else None
        if step is None or np.rint(np.float32(high) / np.float32(step)) < largest:
            return False
    return True


def _number(graph: Graph, name: str) -> float | None:
    """Returns the number that a constant scalar holds; None if the value is not one."""
    from onnx import numpy_helper

    value: npt.NDArray[np.generic] | None = None
    if name in graph.weights:
        value = numpy_helper.to_array(graph.weights[name])
    elif name and graph.constant(name):
        [attribute] = graph.producer[name].attribute
        value = numpy_helper.to_array(attribute.t)
    return float(value.item()) if value is not None and value.size == 1 else None
