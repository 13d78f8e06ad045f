"""fp16 by types in the ONNX: what becomes fp16, what stays, and that the graph still runs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders.precision import describe, to_fp16
from zoo.errors import ExportError


def model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    data: bytes = inferred.SerializeToString()
    return data


def run(data: bytes, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"images": images})[0]
    return found


@pytest.fixture
def attention_like() -> bytes:
    """A layer norm, a product, a softmax and a constant: islands between fp16 operators."""
    rng = np.random.default_rng(0)
    weights = {
        "scale": np.ones(8, np.float32),
        "bias": np.zeros(8, np.float32),
        "w": rng.standard_normal((8, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["images", "scale", "bias"], ["normed"], name="ln"),
        helper.make_node("MatMul", ["normed", "w"], ["scores"], name="mm"),
        helper.make_node(
            "Constant", [], ["c"], name="c", value=numpy_helper.from_array(np.float32(0.5))
        ),
        helper.make_node("Mul", ["scores", "c"], ["scaled"], name="mul"),
        helper.make_node("Softmax", ["scaled"], ["weights"], name="sm", axis=-1),
        helper.make_node("MatMul", ["weights", "w"], ["features"], name="mm2"),
    ]
    return model(nodes, weights, [4, 8])


def test_islands_stay_fp32_and_the_rest_is_fp16(attention_like: bytes) -> None:
    typed = to_fp16(onnx.load_from_string(attention_like))
    onnx.checker.check_model(typed, full_check=True)
    types = {v.name: v.type.tensor_type.elem_type for v in typed.graph.value_info}
    assert types["normed"] == types["weights"] == TensorProto.FLOAT
    assert types["scores"] == types["scaled"] == TensorProto.FLOAT16
    weights = {tensor.name: tensor.data_type for tensor in typed.graph.initializer}
    assert weights["w"] == TensorProto.FLOAT16
    assert weights["scale"] == weights["bias"] == TensorProto.FLOAT
    assert typed.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert typed.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert describe(typed)["weights"] == {"float16": 64, "float": 16}


def test_features_stay_near(attention_like: bytes) -> None:
    images = np.random.default_rng(1).standard_normal((3, 4, 8)).astype(np.float32)
    expected = run(attention_like, images)
    found = run(to_fp16(onnx.load_from_string(attention_like)).SerializeToString(), images)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 1e-2


def test_a_weight_beyond_fp16_is_refused() -> None:
    weights = {"w": np.full((8, 8), 7e4, np.float32)}
    nodes = [helper.make_node("MatMul", ["images", "w"], ["features"], name="mm")]
    with pytest.raises(ExportError, match="'w' reaches 7e"):
        to_fp16(onnx.load_from_string(model(nodes, weights, [4, 8])))


def test_integers_are_left_alone() -> None:
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"], name="s"),
        helper.make_node("Relu", ["images"], ["r"], name="r"),
        helper.make_node("Reshape", ["r", "shape"], ["features"], name="rs"),
    ]
    typed = to_fp16(onnx.load_from_string(model(nodes, {}, [4, 8])))
    onnx.checker.check_model(typed, full_check=True)
    images = np.ones((2, 4, 8), np.float32)
    assert (run(typed.SerializeToString(), images) == images).all()
