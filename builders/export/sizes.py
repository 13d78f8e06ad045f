"""Sizes of an ONNX's activations, from the shapes that they have at a batch size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]

_LARGE = 1024  # elements; larger weights are never shapes, and shape inference does not need them


def largest_tensor(model: onnx.ModelProto) -> int:
    """Returns the elements per image of a model's largest activation.

    A batch whose largest tensor would have 2^31 elements or more does not run in TensorRT.

    Exporters merge the batch with other dimensions (``8*batch`` windows or heads) or lose track of
    it (``unk__7``), so shapes are computed for a batch of one and of two: what grows is an
    activation. What shape inference leaves open is measured by running the model.
    """
    one, two = (shapes_at(model, batch) for batch in (1, 2))
    images = [value.name for value in model.graph.input]
    sizes = [
        math.prod(shape)
        for name, shape in one.items()
        if name in images or math.prod(shape) < math.prod(two.get(name, shape))
    ]
    return max(sizes, default=0)


def shapes_at(model: onnx.ModelProto, batch: int) -> dict[str, Shape]:
    """Returns the shape of every value of a model for a batch size, weights aside."""
    shapes = _inferred(model, batch)
    values = [name for node in model.graph.node for name in node.output if name]
    unknown = [name for name in values if name not in shapes]
    return shapes | _measured(model, batch, unknown) if unknown else shapes


def _inferred(model: onnx.ModelProto, batch: int) -> dict[str, Shape]:
    """Returns the shapes that follow from the operators' definitions."""
    import onnx

    light = _without_weights(model)
    for value in light.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = batch
    # What the exporter states is for any batch; here it is to be inferred again.
    for value in light.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
        if all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
    }


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy without value types, whose large weights are inputs of a known shape."""
    import onnx
    from onnx import helper

    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims)) <= _LARGE:
            graph.initializer.append(tensor)
        else:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(info)
    return light


def _measured(model: onnx.ModelProto, batch: int, values: list[str]) -> dict[str, Shape]:
    """Returns the shapes that values have when a batch is run."""
    import onnxruntime
    from onnx import TensorProto, helper

    from builders.precision.typed import rounded_in_fp32
    from zoo.runtime.onnxruntime import session_options

    copy = rounded_in_fp32(model)  # the CPU lacks kernels for lower types
    names = {f"shape:{value}": value for value in values}
    del copy.graph.output[:]
    for name, value in names.items():
        copy.graph.node.append(helper.make_node("Shape", [value], [name]))
        copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.INT64, [None]))
    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    weights = {tensor.name for tensor in model.graph.initializer}
    (image,) = (value for value in copy.graph.input if value.name not in weights)
    dims = [dim.dim_value for dim in image.type.tensor_type.shape.dim][1:]
    kind = helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type)
    shapes = session.run(list(names), {image.name: np.zeros((batch, *dims), kind)})
    return {
        value: tuple(map(int, shape)) for value, shape in zip(names.values(), shapes, strict=True)
    }
