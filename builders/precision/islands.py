"""Islands: operators of an fp16 or bf16 network that stay in fp32, chosen by measured values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from builders.precision.graph import Graph
from builders.recipe.precisions import HEADROOM, RECIPES, SUMMING
from zoo.schema.precisions import PRECISION_FACTS, Precision

if TYPE_CHECKING:
    import onnx

    from builders.precision.measure import Measured


def choose_islands(model: onnx.ModelProto, measured: Measured, low: Precision) -> dict[str, str]:
    """Returns the nodes that compute in fp32.

    Operators that sum over many elements always stay in fp32: in a narrow type the running sum
    rounds, which their inputs and outputs do not show. Other operators stay in fp32 if an input or
    output comes close to the type's largest value on any image, or if a weight exceeds it, or
    if TensorRT does not support them in the type.

    Args:
        model: The fp32 network.
        measured: Values of its tensors on calibration images.
        low: Type of the remaining layers.

    Returns:
        Node name to reason.
    """
    from onnx import numpy_helper

    graph = Graph(model)
    largest = PRECISION_FACTS[low].largest
    too_large = {
        name
        for name, tensor in graph.weights.items()
        if name in graph.shapes or tensor.data_type == 1
        if tensor.dims and np.abs(numpy_helper.to_array(tensor)).max(initial=0) > largest
    }
    islands: dict[str, str] = {}
    for node in graph.nodes:
        peak = max(measured.peaks.get(name, 0.0) for name in (*node.input, *node.output))
        if node.op_type in SUMMING:
            islands[node.name] = f"{node.op_type} sums"
        elif node.op_type in RECIPES[low].unread:
            islands[node.name] = f"TensorRT reads no {node.op_type} in {low}"
        elif peak > largest / HEADROOM:
            islands[node.name] = f"values reach {peak:.3g}"
        elif too_large & set(node.input):
            islands[node.name] = f"a weight is beyond {low}'s range"
    return islands
