"""Small ONNX networks with the structures that backbones have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper


def residual() -> onnx.ModelProto:
    """A stem, a residual block with a gate (squeeze and excitation), a pool and a product."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> npt.NDArray[np.float32]:
        scaled = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return np.asarray(scaled, np.float32)

    weights = {
        "model.stem.weight": weight(8, 3, 3, 3),
        "model.layer1.0.conv1.weight": weight(8, 8, 3, 3),
        "model.layer1.0.se.weight": weight(8, 8, 1, 1),
        "model.layer1.0.conv2.weight": weight(8, 8, 3, 3),
        "model.head.weight": weight(8, 16),
    }
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["images", "model.stem.weight"], ["a"], name="stem", **same),
        helper.make_node("Relu", ["a"], ["b"], name="r0"),
        helper.make_node("Conv", ["b", "model.layer1.0.conv1.weight"], ["c"], name="c1", **same),
        helper.make_node("Relu", ["c"], ["d"], name="r1"),
        helper.make_node("GlobalAveragePool", ["d"], ["p"], name="pool1"),
        helper.make_node("Conv", ["p", "model.layer1.0.se.weight"], ["q"], name="se"),
        helper.make_node("Sigmoid", ["q"], ["s"], name="sig"),
        helper.make_node("Mul", ["d", "s"], ["e"], name="gate"),
        helper.make_node("Conv", ["e", "model.layer1.0.conv2.weight"], ["f"], name="c2", **same),
        helper.make_node("Add", ["b", "f"], ["g"], name="add"),
        helper.make_node("Relu", ["g"], ["h"], name="r2"),
        helper.make_node("GlobalAveragePool", ["h"], ["i"], name="pool2"),
        helper.make_node("Flatten", ["i"], ["j"], name="flat"),
        helper.make_node("MatMul", ["j", "model.head.weight"], ["features"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 16])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made, strict_mode=True)
