"""Islands: operators of an fp16 or bf16 network that stay in fp32, chosen by measured values."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from builders.precision.graph import Graph
from builders.precision.guards import constants_of, guarded
from builders.precision.typed import DEFAULT_DOMAIN, FP32_INPUTS, opset_in
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
    to the type's largest value on any image, if a weight exceeds it, or if ONNX or TensorRT lacks
    them in the type.

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
    guards, opset = guarded(graph, low), opset_in(model, low)
    islands: dict[str, str] = {}
    for node in graph.nodes:
        peak = max(measured.peaks.get(name, 0.0) for name in (*node.input, *node.output))
        if reason := why_fp32(node.op_type):
            islands[node.name] = f"{node.op_type} {reason.partition(':')[0]}"
        elif node.op_type in RECIPES[low].unread:
            islands[node.name] = f"TensorRT reads no {node.op_type} in {low}"
        elif node.domain in DEFAULT_DOMAIN and not _is_defined(node.op_type, opset, low):
            islands[node.name] = f"opset {opset} has no {node.op_type} in {low}"
        elif node.name in guards:
            islands[node.name] = guards[node.name]
        elif peak > largest / HEADROOM:
            islands[node.name] = f"values reach {peak:.3g}"
        elif too_large & {*node.input, *node.output}:
            islands[node.name] = f"a constant is beyond {low}'s range"
    return islands


@cache
def _is_defined(operator: str, opset: int, low: Precision) -> bool:
    """Whether ONNX defines an operator of floats in a type."""
    import onnx

    schema = onnx.defs.get_schema(operator, opset)
    kind = f"tensor({PRECISION_FACTS[low].onnx.lower()})"
    allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
    kept = FP32_INPUTS.get(operator, ())
    inputs = [value for index, value in enumerate(schema.inputs) if index not in kept]
    types = [allowed.get(value.type_str, [value.type_str]) for value in (*inputs, *schema.outputs)]
    return all(kind in one or "tensor(float)" not in one for one in types)
