"""Islands: operators of an fp16 or bf16 network that stay in fp32, chosen by measured values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from builders.precision.graph import Graph
from builders.precision.guards import constants_of, guarded
from builders.recipe.operators import why_fp32
from builders.recipe.precisions import HEADROOM, RECIPES
from zoo.schema.precisions import PRECISION_FACTS, Precision

if TYPE_CHECKING:
    import onnx

    from builders.precision.measure import Measured


def choose_islands(model: onnx.ModelProto, measured: Measured, low: Precision) -> dict[str, str]:
    """Returns the nodes that compute in fp32.

    Operators that :mod:`builders.recipe.operators` lists always stay in fp32, and so does what
    guards a division against 0 (:mod:`builders.precision.guards`): calibration images do not show
    what a narrow type does to them. Other operators stay in fp32 if an input or output comes close
    to the type's largest value on any image, if a weight exceeds it, or if TensorRT does not
    support them in the type.

    Args:
        model: The fp32 network.
        measured: Values of its tensors on calibration images.
        low: Type of the remaining layers.

    Returns:
        Node name to reason.
    """
    graph = Graph(model)
    largest = PRECISION_FACTS[low].largest
    too_large = {
        name
        for name, values in constants_of(graph).items()
        if values.dtype == np.float32 and np.abs(values).max(initial=0) > largest
    }
    guards = guarded(graph, low)
    islands: dict[str, str] = {}
    for node in graph.nodes:
        peak = max(measured.peaks.get(name, 0.0) for name in (*node.input, *node.output))
        if reason := why_fp32(node.op_type):
            islands[node.name] = f"{node.op_type} {reason.partition(':')[0]}"
        elif node.op_type in RECIPES[low].unread:
            islands[node.name] = f"TensorRT reads no {node.op_type} in {low}"
        elif node.name in guards:
            islands[node.name] = guards[node.name]
        elif peak > largest / HEADROOM:
            islands[node.name] = f"values reach {peak:.3g}"
        elif too_large & {*node.input, *node.output}:
            islands[node.name] = f"a constant is beyond {low}'s range"
    return islands
