"""Writes ``data/toy.onnx`` and ``data/mixed.onnx``, at opset 17 with a dynamic batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from builders.precision import to_low
from support.paths import DATA
from zoo.schema.targets import Precision


def network(convolutions: Sequence[tuple[str, int, int]]) -> onnx.ModelProto:
    """Returns convolutions, each with a ReLU behind it, and a mean.

    Args:
        convolutions: Name, number of input channels and of output channels.
    """
    random = np.random.default_rng(0)
    nodes, weights, value = [], [], "images"
    for name, taken, given in convolutions:
        kernel = random.standard_normal((given, taken, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"{name}.w"))
        nodes += [
            helper.make_node(
                "Conv", [value, f"{name}.w"], [f"{name}.c"], name=name, kernel_shape=[3, 3]
            ),
            helper.make_node("Relu", [f"{name}.c"], [f"{name}.r"], name=f"{name}.relu"),
        ]
        value = f"{name}.r"
    nodes.append(
        helper.make_node("ReduceMean", [value], ["features"], name="mean", axes=[2, 3], keepdims=0)
    )
    features = ["batch", convolutions[-1][2]]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, features)],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return onnx.shape_inference.infer_shapes(made)


def main() -> None:
    """Writes both: a convolution in fp32; one that is kept in fp32 in front of one in fp16."""
    mixed = network([("kept", 3, 64), ("low", 64, 64)])
    for name, made in {
        "toy": network([("conv", 3, 8)]),
        "mixed": to_low(mixed, Precision.FP16, {"kept", "mean"}),
    }.items():
        (DATA / f"{name}.onnx").write_bytes(made.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
