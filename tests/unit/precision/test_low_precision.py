"""fp16 and bf16 by types in the ONNX: what gets them, what stays, and that the graph still runs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.goldens import assert_golden, raises_golden

from builders.precision import describe, rounded_in_fp32, to_low
from builders.precision.graph import Graph, module_of, name_nodes
from builders.precision.islands import choose_islands
from builders.precision.measure import Measured, measure
from zoo.schema.precisions import Precision
from zoo.util.errors import ExportError, PrecisionError


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


def lowered(
    data: bytes, low: Precision = "fp16", islands: set[str] | None = None, **options: bool
) -> onnx.ModelProto:
    """A model in a lower type, with the islands that its operators alone ask for."""
    fp32 = onnx.load_from_string(data)
    if islands is None:
        islands = set(choose_islands(fp32, Measured(), low))
    return to_low(fp32, low, islands, **options)


def rounded(typed: onnx.ModelProto) -> bytes:
    """What the CPU runs to show what a type does."""
    data: bytes = rounded_in_fp32(typed).SerializeToString()
    return data


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


@pytest.mark.parametrize(
    ("low", "operator", "options"),
    [
        ("bf16", "Einsum", {"equation": "bij,jk->bik"}),
        ("bf16", "Shrink", {}),
        ("bf16", "Celu", {}),
        ("fp16", "Celu", {}),
    ],
)
def test_an_operator_that_onnx_lacks_in_a_type_stays_in_fp32(
    low: Precision, operator: str, options: dict[str, str]
) -> None:
    weights = {"w": np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)}
    inputs = ["scores", "w"] if operator == "Einsum" else ["scores"]
    nodes = [
        helper.make_node("MatMul", ["images", "w"], ["scores"], name="mm"),
        helper.make_node(operator, inputs, ["features"], name="lacked", **options),
    ]
    data = model(nodes, weights, [4, 8])
    fp32 = onnx.load_from_string(data)
    opset = {"fp16": 20, "bf16": 22}[low]
    reason = f"opset {opset} has no {operator} in {low}"
    assert choose_islands(fp32, Measured(), low) == {"lacked": reason}
    typed = lowered(data, low)
    onnx.checker.check_model(typed, full_check=True)
    images = np.ones((1, 4, 8), np.float32)
    assert np.allclose(run(rounded(typed), images), run(data, images), rtol=0.05, atol=0.05)


def test_islands_stay_fp32_and_the_rest_is_fp16(attention_like: bytes) -> None:
    typed = lowered(attention_like)
    onnx.checker.check_model(typed, full_check=True)
    types = {v.name: v.type.tensor_type.elem_type for v in typed.graph.value_info}
    assert types["normed"] == types["weights"] == TensorProto.FLOAT
    assert types["scores"] == types["scaled"] == TensorProto.FLOAT16
    weights = {tensor.name: tensor.data_type for tensor in typed.graph.initializer}
    assert weights["w"] == TensorProto.FLOAT16
    assert weights["scale"] == weights["bias"] == TensorProto.FLOAT
    assert typed.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert typed.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert describe(typed).weights == {"float16": 64, "float": 16}


def test_features_stay_near(attention_like: bytes) -> None:
    images = np.random.default_rng(1).standard_normal((3, 4, 8)).astype(np.float32)
    expected = run(attention_like, images)
    found = run(rounded(lowered(attention_like)), images)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 1e-2


def test_a_weight_beyond_fp16_is_refused() -> None:
    weights = {"w": np.full((8, 8), 7e4, np.float32)}
    nodes = [helper.make_node("MatMul", ["images", "w"], ["features"], name="mm")]
    with raises_golden(ExportError, "precision/weight-beyond-fp16", match="'w'"):
        lowered(model(nodes, weights, [4, 8]), islands=set())


def test_integers_are_left_alone() -> None:
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"], name="s"),
        helper.make_node("Relu", ["images"], ["r"], name="r"),
        helper.make_node("Reshape", ["r", "shape"], ["features"], name="rs"),
    ]
    typed = lowered(model(nodes, {}, [4, 8]))
    onnx.checker.check_model(typed, full_check=True)
    images = np.ones((2, 4, 8), np.float32)
    assert (run(typed.SerializeToString(), images) == images).all()


def test_bf16_is_valid_onnx_and_rounds_as_it_should(attention_like: bytes) -> None:
    typed = lowered(attention_like, "bf16")
    onnx.checker.check_model(typed, full_check=True)
    weights = {tensor.name: tensor.data_type for tensor in typed.graph.initializer}
    assert weights["w"] == TensorProto.BFLOAT16
    assert weights["scale"] == TensorProto.FLOAT
    images = np.random.default_rng(1).standard_normal((3, 4, 8)).astype(np.float32)
    expected = run(attention_like, images)
    errors = {
        low: float(np.abs(run(data, images) - expected).max())
        for low, data in (
            ("fp16", rounded(lowered(attention_like))),
            ("bf16", rounded(typed)),
        )
    }
    # Three bits fewer than fp16 has: about eight times its error.
    assert 2 < errors["bf16"] / errors["fp16"] < 32


@pytest.mark.parametrize("low", ["fp16", "bf16"])
def test_images_may_be_fp16(attention_like: bytes, low: Precision) -> None:
    typed = lowered(attention_like, low, low_images=True)
    onnx.checker.check_model(typed, full_check=True)
    images = np.random.default_rng(1).standard_normal((3, 4, 8)).astype(np.float32)
    assert np.allclose(run(rounded(typed), images), run(attention_like, images), atol=0.1)
    assert typed.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert typed.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def amplified(by: float) -> onnx.ModelProto:
    """Two products and a sum over an axis, of values that grow by a factor on the way."""
    weights = {
        "up": np.eye(8, dtype=np.float32) * by,
        "down": np.eye(8, dtype=np.float32) / by,
        "axis": np.array([1]),
    }
    nodes = [
        helper.make_node("MatMul", ["images", "up"], ["large"], name="up"),
        helper.make_node("Relu", ["large"], ["kept"], name="relu"),
        helper.make_node("MatMul", ["kept", "down"], ["small"], name="down"),
        helper.make_node("ReduceMean", ["small", "axis"], ["features"], name="mean", keepdims=0),
    ]
    return onnx.load_from_string(model(nodes, weights, [4, 8]))


def test_what_is_measured_is_what_the_tensors_hold() -> None:
    images = np.random.default_rng(0).standard_normal((6, 4, 8)).astype(np.float32)
    found = measure(amplified(3.0), [images[:4], images[4:]], {"large"})
    large = 3 * images
    assert found.peaks["images"] == pytest.approx(np.abs(images).max())
    assert found.peaks["large"] == pytest.approx(np.abs(large).max())
    assert found.lows["large"] == pytest.approx(large.min())
    sums = np.maximum(images, 0).sum(axis=1)
    assert found.sums["mean"] == pytest.approx(sums.max(), rel=1e-5)
    assert found.histograms["large"].sum() == large.size
    assert set(found.histograms) == {"large"}


def test_values_near_the_end_of_fp16_become_islands_by_measuring() -> None:
    images = np.random.default_rng(0).standard_normal((4, 4, 8)).astype(np.float32)
    chosen = {}
    for by in (10.0, 1e5):
        network = amplified(by)
        chosen[by] = choose_islands(network, measure(network, [images]), "fp16")
    assert set(chosen[10.0]) == {"mean"}
    assert set(chosen[1e5]) == {"up", "relu", "down", "mean"}
    assert "values reach" in chosen[1e5]["relu"]
    # bf16 reaches as far as fp32.
    network = amplified(1e5)
    assert set(choose_islands(network, measure(network, [images]), "bf16")) == {"mean"}
    typed = to_low(network, "fp16", set(chosen[1e5]))
    assert np.isfinite(run(rounded(typed), images)).all()
    without = to_low(amplified(100.0), "fp16", {"mean"})
    assert not np.isfinite(run(rounded(without), images * 1e4)).all()


def test_a_value_within_eight_times_of_the_end_is_an_island_and_so_is_a_weight_beyond_it() -> None:
    network = amplified(1.0)
    near, far = (Measured(peaks={"large": 65504 / 8 * by}) for by in (1.01, 0.99))
    assert set(choose_islands(network, near, "fp16")) == {"up", "relu", "mean"}
    assert set(choose_islands(network, far, "fp16")) == {"mean"}
    islands = choose_islands(amplified(7e4), Measured(), "fp16")
    assert_golden("precision/constant-beyond-range", islands["up"])
    assert set(islands) == {"up", "mean"}


def test_sums_of_squares_are_measured_over_the_axes_that_are_normalised(
    attention_like: bytes,
) -> None:
    images = np.random.default_rng(0).standard_normal((3, 4, 8)).astype(np.float32)
    found = measure(onnx.load_from_string(attention_like), [images])
    assert found.sums["ln"] == pytest.approx((images**2).sum(axis=-1).max(), rel=1e-5)


def test_what_tensorrt_reads_in_no_bf16_stays_fp32_there() -> None:
    node = helper.make_node("HardSwish", ["images"], ["features"], name="act")
    data = model([node], {}, [8])
    assert choose_islands(onnx.load_from_string(data), Measured(), "fp16") == {}
    islands = choose_islands(onnx.load_from_string(data), Measured(), "bf16")
    assert islands == {"act": "TensorRT reads no HardSwish in bf16"}


def test_nodes_get_names_of_their_own() -> None:
    nodes = [
        helper.make_node("Relu", ["images"], ["a"], name="n"),
        helper.make_node("Relu", ["a"], ["b"], name="n"),
        helper.make_node("Relu", ["b"], ["features"]),
    ]
    network = onnx.load_from_string(model(nodes, {}, [4, 8]))
    name_nodes(network)
    assert len({node.name for node in network.graph.node}) == 3
    assert Graph(network).elements("a") == 32


@pytest.mark.parametrize(
    ("name", "weight", "module"),
    [
        ("node_conv2d_3", "model.layer1.0.conv1.weight", "layer1.0.conv1"),
        ("node_conv2d", "model.conv_stem.weight", "conv_stem"),
        ("/model/layer1/layer1.0/conv1/Conv", "onnx::Conv_497", "layer1.0.conv1"),
        ("/model/blocks/blocks.3/attn/qkv/MatMul", "onnx::MatMul_12", "blocks.3.attn.qkv"),
        ("Conv_3", "w", "Conv_3"),
    ],
)
def test_operators_are_called_by_their_modules(name: str, weight: str, module: str) -> None:
    assert module_of(helper.make_node("Conv", ["x", weight], ["y"], name=name)) == module


@pytest.mark.parametrize("pool", ["MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin"])
def test_nan_that_a_maximum_hides_is_refused(pool: str) -> None:
    """ONNX Runtime's maximum of a map with a NaN is finite, and so are the features."""
    options = {"kernel_shape": [2, 2]} if pool == "MaxPool" else {}
    nodes = [
        helper.make_node("Sqrt", ["images"], ["root"], name="root"),
        helper.make_node(pool, ["root"], ["features"], name="pool", **options),
    ]
    fp32 = onnx.load_from_string(model(nodes, {}, [1, 8, 8]))
    images = np.ones((2, 1, 8, 8), np.float32)
    assert measure(fp32, [images]).peaks["root"] == 1
    images[1, 0, 5, 5] = -1
    with raises_golden(PrecisionError, "precision/nan-before-a-maximum", match="'root'"):
        measure(fp32, [images])
    images[1, 0, 5, 5] = np.inf
    assert measure(fp32, [images]).peaks["root"] == np.inf
