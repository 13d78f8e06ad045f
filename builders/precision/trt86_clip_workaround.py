"""Clips: an upper end at which int8 saturates anyway is left out, for TensorRT 8.6 gets it wrong.

It moves a QuantizeLinear in front of the Clip before it, and where the Clip is not fused into an
int8 convolution, clips the integers at the Clip's own ends: of 127 steps, 6 are left by a ReLU6.
MobileNetV2, some of whose convolutions are kept in higher precision, came to a worst cosine of 0.86
where its ONNX has 0.9956 (``docs/results/h200-trt8.6``). A Relu has no end to be taken wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from builders.precision.graph import Graph
from builders.precision.ranges import LEVELS

if TYPE_CHECKING:
    import onnx


def drop_upper_ends(model: onnx.ModelProto) -> None:
    """Makes a Relu of every Clip whose result is quantised, and saturates no later.

    Not one number of the network changes.

    Args:
        model: With Q/DQ of type int8; changed in place.
    """
    graph = Graph(model)
    for node in graph.nodes:
        if node.op_type == "Clip" and _is_relu(graph, node):
            node.op_type = "Relu"
            del node.input[1:]
    taken = {name for node in graph.nodes for name in node.input}
    left = [one for one in graph.nodes if one.op_type != "Constant" or one.output[0] in taken]
    del model.graph.node[:]
    model.graph.node.extend(left)


def _is_relu(graph: Graph, clip: onnx.NodeProto) -> bool:
    """Whether whoever takes a Clip's result can't tell it from a Relu's."""
    low, high = (_number(graph, name) for name in (*clip.input, "", "")[1:3])
    takers = graph.consumers[clip.output[0]]
    if low != 0 or high is None or clip.output[0] in graph.outputs or not takers:
        return False
    for taker in takers:
        step = _number(graph, taker.input[1]) if taker.op_type == "QuantizeLinear" else None
        if step is None or np.rint(np.float32(high) / np.float32(step)) < LEVELS:
            return False
    return True


def _number(graph: Graph, name: str) -> float | None:
    """Returns a constant number; None where there is none."""
    from onnx import numpy_helper

    value: npt.NDArray[np.generic] | None = None
    if name in graph.weights:
        value = numpy_helper.to_array(graph.weights[name])
    elif name and graph.constant(name):
        [attribute] = graph.producer[name].attribute
        value = numpy_helper.to_array(attribute.t)
    return float(value.item()) if value is not None and value.size == 1 else None
