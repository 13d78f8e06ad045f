"""Precision: an fp32 ONNX made into a typed one of lower precision.

Precision lives in the ONNX, not in builder flags: TensorRT 11 has no FP16 flag, TensorRT-RTX never
had one, and every network is strongly typed. An fp16 ONNX has fp16 weights and activations, and
*islands* of fp32 around operators whose numbers need them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from builders.inputs import FP32_ISLANDS
from zoo.errors import ExportError

if TYPE_CHECKING:
    import onnx

# Inputs that the operator's definition wants in fp32, or that are no tensors of the network.
_FP32_INPUTS = {"Resize": (1, 2)}


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns an fp16 copy of an fp32 model, with fp32 islands, inputs and outputs.

    Args:
        model: fp32, normalised, with the type of every intermediate value. It is used up: its
            weights are moved into the copy.

    Raises:
        ExportError: A weight is too large for fp16 (above 65,504), or the type of a value is
            not known.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.output, *graph.value_info)
    }
    weights = {tensor.name: tensor for tensor in graph.initializer}
    fp32_weights = _weights_of_islands(model)
    now: dict[str, int] = {value.name: types[value.name] for value in graph.input}
    for name, tensor in weights.items():
        if tensor.data_type == TensorProto.FLOAT and name not in fp32_weights:
            _halve(tensor)
        now[name] = tensor.data_type
    outputs = {value.name for value in graph.output}
    casts: dict[tuple[str, int], str] = {}
    nodes: list[onnx.NodeProto] = []

    def cast(name: str, wanted: int) -> str:
        if (name, wanted) not in casts:
            suffix = "fp16" if wanted == TensorProto.FLOAT16 else "fp32"
            casts[name, wanted] = f"{name}_{suffix}"
            nodes.append(
                helper.make_node(
                    "Cast", [name], [casts[name, wanted]], name=f"cast_{name}_{suffix}", to=wanted
                )
            )
        return casts[name, wanted]

    for node in graph.node:
        wanted = TensorProto.FLOAT if node.op_type in FP32_ISLANDS else TensorProto.FLOAT16
        for index, name in enumerate(node.input):
            if name == "" or index in _FP32_INPUTS.get(node.op_type, ()):
                continue
            if name not in now:
                raise ExportError(f"{node.name}: input '{name}' comes from nowhere")
            if now[name] in (TensorProto.FLOAT, TensorProto.FLOAT16) and now[name] != wanted:
                node.input[index] = cast(name, wanted)
        _retype_attributes(node, wanted)
        nodes.append(node)
        for position, name in enumerate(node.output):
            if types.get(name, TensorProto.UNDEFINED) == TensorProto.UNDEFINED:
                raise ExportError(f"{node.name}: the type of its output '{name}' is not known")
            is_float = types[name] == TensorProto.FLOAT
            now[name] = wanted if is_float else types[name]
            if name in outputs and is_float and wanted != TensorProto.FLOAT:
                inner = f"{name}_fp16"
                node.output[position] = inner
                now[inner] = wanted
                nodes.append(
                    helper.make_node("Cast", [inner], [name], name=f"cast_{name}", to=types[name])
                )
    del graph.node[:]
    graph.node.extend(nodes)
    shapes = {value.name: value for value in graph.value_info}
    for name, value in shapes.items():
        value.type.tensor_type.elem_type = now.get(name, value.type.tensor_type.elem_type)
    return model


def describe(model: onnx.ModelProto) -> dict[str, Any]:
    """Says what a model computes in, read from its graph.

    Returns:
        ``weights``: elements per type; ``nodes``: nodes per type of their first output;
        ``casts``: how many of the nodes are casts.
    """
    from onnx import TensorProto

    weights: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        weights[TensorProto.DataType.Name(tensor.data_type).lower()] += int(np.prod(tensor.dims))
    types = {
        value.name: TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
        for value in (*model.graph.value_info, *model.graph.output)
    }
    nodes = Counter(
        types.get(node.output[0], "unknown") for node in model.graph.node if node.op_type != "Cast"
    )
    casts = sum(node.op_type == "Cast" for node in model.graph.node)
    return {"weights": dict(weights), "nodes": dict(nodes), "casts": casts}


def _weights_of_islands(model: onnx.ModelProto) -> set[str]:
    """Returns the weights that only islands use, which stay fp32."""
    inside: set[str] = set()
    outside: set[str] = set()
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            keeps = node.op_type in FP32_ISLANDS or index in _FP32_INPUTS.get(node.op_type, ())
            (inside if keeps else outside).add(name)
    return inside - outside


def _halve(tensor: onnx.TensorProto) -> None:
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max()) if values.size else 0.0
    if largest > float(np.finfo(np.float16).max):
        raise ExportError(
            f"weight '{tensor.name}' reaches {largest:.4g}, beyond fp16's 65504",
            hint="this model has no fp16 engine; take PRECISION=fp32",
        )
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))


def _retype_attributes(node: onnx.NodeProto, wanted: int) -> None:
    """Makes constants and explicit casts of a node produce ``wanted`` instead of fp32."""
    from onnx import TensorProto

    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = wanted
        is_constant = node.op_type in ("Constant", "ConstantOfShape") and attribute.name == "value"
        if is_constant and attribute.t.data_type == TensorProto.FLOAT:
            _halve(attribute.t)
