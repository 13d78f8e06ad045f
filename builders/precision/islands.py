"""Islands: which operators of an fp16 or bf16 network stay fp32, by what was measured in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from builders.precision.graph import Graph
from builders.recipe.precisions import HEADROOM, NOT_IN_BF16, SUMMING
from zoo.schema.precisions import LowType, Precision, largest_of

if TYPE_CHECKING:
    import onnx

    from builders.precision.measure import Measured


def choose_islands(model: onnx.ModelProto, measured: Measured, low: LowType) -> dict[str, str]:
    """Chooses the nodes that compute in fp32.

    Operators that sum over many elements stay fp32 whatever is measured: in a narrow type the sum
    itself rounds, which no look at their inputs and outputs shows. Of the others stays what takes
    or gives values near the end of the type's range on any image, and what holds a weight beyond
    it; in bf16, also what TensorRT does not read in it.

    Args:
        model: fp32.
        measured: What its tensors hold on calibration images.
        low: The type of the rest.

    Returns:
        Name of the node to the reason.
    """
    from onnx import numpy_helper

    graph = Graph(model)
    limit = largest_of(low) / HEADROOM
    too_large = {
        name
        for name, tensor in graph.weights.items()
        if name in graph.shapes or tensor.data_type == 1
        if tensor.dims and np.abs(numpy_helper.to_array(tensor)).max(initial=0) > largest_of(low)
    }
    islands: dict[str, str] = {}
    for node in graph.nodes:
        reached = max(measured.peaks.get(name, 0.0) for name in (*node.input, *node.output))
        if node.op_type in SUMMING:
            islands[node.name] = f"{node.op_type} sums"
        elif low == Precision.BF16 and node.op_type in NOT_IN_BF16:
            islands[node.name] = f"TensorRT reads no {node.op_type} in bf16"
        elif reached > limit:
            islands[node.name] = f"values reach {reached:.3g}"
        elif too_large & set(node.input):
            islands[node.name] = f"a weight is beyond {low}'s range"
    return islands
