"""int8: where a network quantises, with which scales, and what comes of it in the runtimes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.goldens import raises_golden
from support.installed import installed_inputs
from support.networks import residual

from builders.backends.onnxruntime import OnnxRuntimeBackend
from builders.precision import qdq
from builders.precision.graph import name_nodes
from builders.precision.measure import BINS, Measured, magnitudes, measure
from builders.precision.onnx_session import open_onnx
from builders.precision.qdq import place, quantise
from builders.precision.ranges import activation_scales, weight_scales
from builders.precision.typed import to_low
from builders.recipe.precisions import RangeMethod
from zoo.schema.targets import Placing, Precision
from zoo.util.errors import BuildError

IMAGES = np.random.default_rng(3).standard_normal((4, 3, 16, 16)).astype(np.float32)


def quantised(placing: Placing, method: RangeMethod = RangeMethod.MAX) -> onnx.ModelProto:
    network = residual()
    placement = place(network, placing)
    measured = measure(network, [IMAGES], placement.activations)
    unsigned = placing == "onnxruntime"
    return quantise(
        network,
        placement,
        Precision.INT8,
        activation_scales(measured, method, Precision.INT8, unsigned=unsigned),
    )


def run(model: onnx.ModelProto | Path) -> npt.NDArray[np.float32]:
    return open_onnx(model)(IMAGES)  # as the Q/DQ say: fused, a CPU without VNNI may clip sums


def test_tensorrt_gets_the_shortcut_quantised_and_not_what_joins_it() -> None:
    model = quantised("tensorrt")
    onnx.checker.check_model(model, full_check=True)
    nodes = {node.name: node for node in model.graph.node}
    assert list(nodes["add"].input) == ["b_dequantised", "f"]
    assert nodes["c2"].input[0] == "e_dequantised"
    # Gates are next to no work; pools and activations follow in whatever type there is.
    assert nodes["se"].input[0] == "p"
    assert nodes["pool2"].input[0] == "h"
    kinds = Counter(node.op_type for node in model.graph.node)
    # images, b (once, for the block and its shortcut), e and j; four weights.
    assert kinds["QuantizeLinear"] == kinds["DequantizeLinear"] == 8
    zeros = {t.name: t.data_type for t in model.graph.initializer if "zero_point" in t.name}
    assert set(zeros.values()) == {TensorProto.INT8}


def test_onnx_runtime_gets_results_quantised_behind_what_it_absorbs(tmp_path: Path) -> None:
    model = quantised("onnxruntime")
    onnx.checker.check_model(model, full_check=True)
    nodes = {node.name: node for node in model.graph.node}
    assert list(nodes["add"].input) == ["b_dequantised", "f_dequantised"]
    assert nodes["pool1"].input[0] == nodes["gate"].input[0] == "d_dequantised"
    zeros = {
        t.name.removesuffix("_zero_point"): numpy_helper.to_array(t)
        for t in model.graph.initializer
        if "zero_point" in t.name
    }
    assert zeros["b"].dtype == zeros["f"].dtype == np.uint8
    assert zeros["b"] == 0  # behind a Relu
    assert zeros["images"] == zeros["f"] == 128
    assert {zero.dtype for zero in zeros.values()} == {np.dtype(np.uint8)}  # weights too
    onnx.save(model, tmp_path / "int8.onnx")
    asked = installed_inputs("ort", "cpu").model_copy(update={"precision": "int8"})
    engine = tmp_path / "engine"
    facts = OnnxRuntimeBackend().build(tmp_path / "int8.onnx", asked, engine, parameters=1)
    assert facts.precision_proven
    assert (facts.values.int8_operators or {})["QLinearConv"] == 3
    assert np.allclose(run(engine), run(model), atol=0.05)


def test_an_engine_adds_the_largest_products_exactly_on_every_cpu(tmp_path: Path) -> None:
    # Without VNNI, uint8 times int8 is added in pairs in 16 bits: 2 x 255 x 127 is clipped there.
    images = np.ones((2, 64, 4, 4), np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], "conv"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("ReduceMean", ["b", "axes"], ["features"], "mean", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 64, 4, 4])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 16])],
        [
            numpy_helper.from_array(np.ones((16, 64, 1, 1), np.float32), "w"),
            numpy_helper.from_array(np.array([2, 3]), "axes"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    network = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    placement = place(network, "onnxruntime")
    measured = measure(network, [images], placement.activations)
    scales = activation_scales(measured, "max", Precision.INT8, unsigned=True)
    onnx.save(quantise(network, placement, Precision.INT8, scales), tmp_path / "int8.onnx")
    asked = installed_inputs("ort", "cpu").model_copy(update={"precision": "int8"})
    engine = tmp_path / "engine"
    facts = OnnxRuntimeBackend().build(tmp_path / "int8.onnx", asked, engine, parameters=1)
    assert (facts.values.int8_operators or {})["QLinearConv"] == 1
    features = open_onnx(engine)(images)
    assert features == pytest.approx(64.0, rel=0.02)


def test_an_int8_engine_that_computes_in_fp32_is_refused(tmp_path: Path) -> None:
    onnx.save(quantised("tensorrt"), tmp_path / "int8.onnx")
    asked = installed_inputs("ort", "cpu").model_copy(update={"precision": "int8"})
    with raises_golden(BuildError, "precision/int8-in-fp32"):
        OnnxRuntimeBackend().build(tmp_path / "int8.onnx", asked, tmp_path / "engine", parameters=1)


@pytest.mark.parametrize("placing", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize("method", RangeMethod)
def test_features_stay_near(placing: Placing, method: RangeMethod) -> None:
    expected, found = run(residual()), run(quantised(placing, method))
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert 0 < error.max() < 0.15


def test_operators_that_are_kept_have_no_pair_and_nor_has_their_shortcut() -> None:
    network = residual()
    placement = place(network, "tensorrt")
    without = placement.without({"c2"})
    assert {one.node for one in without.operators} == {"stem", "c1", "head"}
    assert without.shortcuts == ()
    assert placement.without({"add"}).shortcuts == ()
    assert {one.module: one.work for one in placement.operators}["stem"] == 8 * 27 * 16 * 16
    assert [one.module for one in placement.shortcuts] == ["shortcut past layer1.0.conv2"]


def test_what_is_added_to_a_constant_or_taken_twice_is_no_shortcut() -> None:
    network = residual()
    (relu,) = (node for node in network.graph.node if node.name == "r2")
    relu.op_type = "Add"
    relu.input.append("f")  # which the convolution gives to two
    assert place(network, "tensorrt").shortcuts == ()
    network = residual()
    (add,) = (node for node in network.graph.node if node.name == "add")
    add.input[0] = "bias"
    bias = np.ones((1, 8, 1, 1), np.float32)
    network.graph.initializer.append(numpy_helper.from_array(bias, "bias"))
    assert place(network, "tensorrt").shortcuts == ()


@pytest.mark.parametrize(("transposed", "axis"), [(0, 1), (1, 0)])
def test_a_product_has_a_step_for_each_of_its_outputs(transposed: int, axis: int) -> None:
    network = residual()
    (head,) = (node for node in network.graph.node if node.name == "head")
    head.op_type = "Gemm"
    head.attribute.append(helper.make_attribute("transB", transposed))
    *_, last = place(network, "tensorrt").operators
    assert (last.node, last.axis) == ("head", axis)


def clipped(low: float = 0.0, high: float = 1.5) -> onnx.ModelProto:
    """The residual network with a Clip in place of its first Relu."""
    network = residual()
    for name, end in (("low", low), ("high", high)):
        network.graph.initializer.append(numpy_helper.from_array(np.float32(end), name))
    (relu,) = (node for node in network.graph.node if node.name == "r0")
    relu.op_type = "Clip"
    relu.input.extend(["low", "high"])
    return network


def made_of(
    network: onnx.ModelProto, placing: Placing = "tensorrt", wider: float = 1, kept: str = ""
) -> onnx.ModelProto:
    """A network in int8, its ranges so many times as wide as they need be."""
    placement = place(network, placing)
    measured = measure(network, [IMAGES], placement.activations)
    scales = activation_scales(measured, "max", Precision.INT8, unsigned=placing == "onnxruntime")
    scales = {name: replace(one, step=one.step * wider) for name, one in scales.items()}
    made = quantise(network, placement.without([kept]), Precision.INT8, scales)
    onnx.checker.check_model(made, full_check=True)
    return made


def clip_of(made: onnx.ModelProto) -> str:
    """What has become of the Clip."""
    [kind] = (node.op_type for node in made.graph.node if node.name == "r0")
    return kind


def test_a_clip_that_ends_where_int8_saturates_is_a_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    made = made_of(clipped())
    assert clip_of(made) == "Relu"
    monkeypatch.setattr(qdq, "drop_upper_ends", lambda *_: None)
    before = made_of(clipped())
    assert clip_of(before) == "Clip"
    assert np.array_equal(run(made), run(before))


def test_a_clip_whose_end_is_to_be_seen_stays() -> None:
    assert clip_of(made_of(clipped(), wider=1.1)) == "Clip"  # int8 reaches beyond its end
    assert clip_of(made_of(clipped(low=-0.5))) == "Clip"
    assert clip_of(made_of(clipped(), kept="c1")) == "Clip"  # which takes what it gives
    assert clip_of(made_of(clipped(), "onnxruntime")) == "Clip"
    seen = clipped()
    seen.graph.output.append(next(one for one in seen.graph.value_info if one.name == "b"))
    assert clip_of(made_of(seen)) == "Clip"


def test_a_clip_may_have_its_ends_from_constants() -> None:
    network = clipped()
    for name in ("low", "high"):
        (end,) = (one for one in network.graph.initializer if one.name == name)
        network.graph.node.insert(0, helper.make_node("Constant", [], [name], value=end))
        network.graph.initializer.remove(end)
    assert not {node.op_type for node in made_of(network).graph.node} & {"Clip", "Constant"}


def test_what_is_not_quantised_may_be_fp16() -> None:
    network = quantised("tensorrt")
    name_nodes(network)
    typed = to_low(network, "fp16", {"pool1", "pool2"})
    onnx.checker.check_model(typed, full_check=True)
    types = {v.name: v.type.tensor_type.elem_type for v in typed.graph.value_info}
    assert types["b_dequantised"] == TensorProto.FLOAT16
    assert types["b_quantised"] == TensorProto.INT8
    scales = {t.name: t.data_type for t in typed.graph.initializer if t.name.endswith("_scale")}
    assert set(scales.values()) == {TensorProto.FLOAT16}


def test_weights_have_a_step_for_each_channel() -> None:
    values = np.array([[1.27, -0.5], [0.0, 0.0], [-12.7, 1.0]], np.float32)
    assert weight_scales(values, 0, 127) == pytest.approx([0.01, 1.0, 0.1])
    assert weight_scales(values, 1, 127) == pytest.approx([0.1, 1 / 127])


def seen(values: npt.NDArray[np.float32]) -> Measured:
    bins = np.abs(values).view(np.uint32) >> 16
    return Measured(
        peaks={"x": float(np.abs(values).max())},
        lows={"x": float(values.min())},
        histograms={"x": np.bincount(bins, minlength=BINS)},
    )


def test_an_outlier_widens_the_range_by_max_alone() -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    values[0] = 1000.0
    steps = {
        method: activation_scales(seen(values), method, Precision.INT8)["x"].step * 127
        for method in RangeMethod
    }
    assert steps["max"] == pytest.approx(1000.0)
    assert 3 < steps["percentile"] < 5
    assert steps["entropy"] < 1000
    spread = {m: np.abs(seen(values).peaks["x"] - steps[m]) for m in steps}
    assert spread["max"] < 1


def test_the_range_of_least_error_is_the_range_of_least_error() -> None:
    values = (np.random.default_rng(0).standard_t(3, 50_000)).astype(np.float32)
    best = activation_scales(seen(values), "mse", Precision.INT8)["x"].step

    def error(step: float) -> float:
        return float(((np.clip(np.rint(values / step), -127, 127) * step - values) ** 2).mean())

    limits = np.abs(values).max() * np.linspace(0.05, 1, 200)
    assert error(best) < 1.1 * min(error(limit / 127) for limit in limits)


def test_what_is_never_negative_has_twice_the_steps() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(1000)).astype(np.float32)
    signed, unsigned = (
        activation_scales(seen(values), "max", Precision.INT8, unsigned=flag)["x"]
        for flag in (False, True)
    )
    assert [(one.levels.kind, one.levels.zero) for one in (signed, unsigned)] == [
        ("INT8", 0),
        ("UINT8", 0),
    ]
    assert signed.step / unsigned.step == pytest.approx(255 / 127)
    around = activation_scales(seen(-values), "max", Precision.INT8, unsigned=True)["x"]
    assert around.levels.zero == 128
    assert around.step == signed.step


def test_bins_are_magnitudes_rounded_down_to_bfloat16() -> None:
    edges = magnitudes()
    value = np.float32(3.14159)
    place_of = value.view(np.uint32) >> 16
    assert edges[place_of] <= value < edges[place_of + 1]
    assert (edges[place_of + 1] - edges[place_of]) / value < 1 / 100
