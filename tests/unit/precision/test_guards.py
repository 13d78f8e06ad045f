"""What guards a division in several steps reaches it, in fp16 and beside quantised operators."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders.precision import Images, lower, rounded_in_fp32, to_low
from builders.precision.islands import choose_islands
from builders.precision.measure import Measured
from builders.precision.onnx_session import open_onnx
from zoo.schema.floors import floors
from zoo.schema.targets import Placing, Precision, Rest

Nodes = tuple[tuple[str, list[str], str], ...]

CONSTANTS: dict[str, npt.ArrayLike] = {
    "1e-4": np.float32(1e-4),
    "1e-3": np.float32(1e-3),
    "1e-6": np.float32(1e-6),
    "1e-9": np.float32(1e-9),
    "1e-12": np.float32(1e-12),
    "0.5": np.float32(0.5),
    "one": np.float32(1),
    "two": np.float32(2),
    "three": np.float32(3),
    "minus two": np.float32(-2),
    "ones": np.ones((8, 8), np.float32),
    "signs": np.where(np.eye(8), -1, 1).astype(np.float32),
    "channels": np.array([1]),
    "places": np.array([2]),
}

GUARDS: dict[str, Nodes] = {
    "linear attention": (
        ("Add", ["x", "1e-6"], "q"), ("Mul", ["x", "0.5"], "h"), ("Add", ["h", "1e-6"], "k"),
        ("Transpose", ["k"], "t"), ("ReduceSum", ["t", "channels"], "s"),
        ("MatMul", ["q", "t"], "m"), ("MatMul", ["m", "x"], "n"),
        ("MatMul", ["s", "q"], "d"), ("Div", ["n", "d"], "features"),
    ),
    "sum of what is guarded": (
        ("Add", ["x", "1e-9"], "a"), ("ReduceSum", ["a", "channels"], "s"),
        ("Div", ["a", "s"], "features"),
    ),
    "mean of what is guarded": (
        ("Add", ["x", "1e-9"], "a"), ("ReduceMean", ["a", "channels"], "s"),
        ("Div", ["x", "s"], "features"),
    ),
    "product of two guarded values": (
        ("Mul", ["x", "0.5"], "h"), ("Add", ["h", "1e-6"], "a"),
        ("ReduceMean", ["x", "channels"], "m"), ("Add", ["m", "1e-6"], "b"),
        ("Mul", ["a", "b"], "d"), ("Div", ["x", "d"], "features"),
    ),
    "product of two normal constants": (
        ("ReduceMean", ["x", "places"], "m"), ("Add", ["m", "1e-4"], "a"),
        ("ReduceMean", ["x", "channels"], "n"), ("Add", ["n", "1e-4"], "b"),
        ("Mul", ["a", "b"], "d"), ("Div", ["x", "d"], "features"),
    ),
    "square": (
        ("ReduceMean", ["x", "places"], "m"), ("Add", ["m", "1e-4"], "a"),
        ("Pow", ["a", "two"], "d"), ("Div", ["x", "d"], "features"),
    ),
    "square by a product": (
        ("ReduceMean", ["x", "places"], "m"), ("Add", ["m", "1e-4"], "a"),
        ("Mul", ["a", "a"], "d"), ("Div", ["x", "d"], "features"),
    ),
    "cube": (
        ("ReduceMean", ["x", "places"], "m"), ("Add", ["m", "1e-3"], "a"),
        ("Pow", ["a", "three"], "d"), ("Div", ["x", "d"], "features"),
    ),
    "reciprocal of a square": (
        ("ReduceMean", ["x", "places"], "m"), ("Add", ["m", "1e-3"], "a"),
        ("Pow", ["a", "minus two"], "d"), ("Mul", ["x", "d"], "features"),
    ),
    "square of a reciprocal": (
        ("ReduceMean", ["x", "places"], "m"), ("Add", ["m", "1e-3"], "a"),
        ("Reciprocal", ["a"], "r"), ("Mul", ["r", "r"], "d"), ("Mul", ["x", "d"], "features"),
    ),
    "root of a sum of third powers": (
        ("Abs", ["x"], "a"), ("Pow", ["a", "three"], "p"), ("ReduceSum", ["p", "channels"], "s"),
        ("Div", ["one", "three"], "e"), ("Pow", ["s", "e"], "n"), ("Clip", ["n", "1e-12"], "d"),
        ("Div", ["x", "d"], "features"),
    ),
    "sum of products": (
        ("Add", ["x", "1e-9"], "a"), ("MatMul", ["a", "ones"], "d"),
        ("Div", ["x", "d"], "features"),
    ),
    "maximum, then a logarithm": (
        ("Add", ["x", "1e-9"], "a"), ("ReduceMax", ["a", "channels"], "d"),
        ("Log", ["d"], "features"),
    ),
}  # fmt: skip

OPTIONS = {"Transpose": {"perm": [0, 2, 1]}}


def network(nodes: Nodes, weight: str | None = None) -> onnx.ModelProto:
    """A network whose values are not negative, as behind a Relu."""
    first: Nodes = (("Relu", ["images" if weight is None else "c"], "x"),)
    if weight is not None:
        first = (("MatMul", ["images", weight], "c"), *first)
    graph = helper.make_graph(
        [
            helper.make_node(op, inputs, [out], name=out, **OPTIONS.get(op, {}))
            for op, inputs, out in (*first, *nodes)
        ],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 8, 8])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in CONSTANTS.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made, strict_mode=True)


def edges() -> npt.NDArray[np.float32]:
    """Nothing, nearly nothing in all places, and both in one picture."""
    levels = np.array([0, 1e-6, 1e-4, 0.002], np.float32)
    mixed = np.where(np.arange(64).reshape(8, 8) % 3, 0, 0.01).astype(np.float32)
    flat = np.broadcast_to(levels[:, None, None], (4, 8, 8))
    return np.concatenate([flat, mixed[None]])


@pytest.mark.parametrize("name", GUARDS)
def test_what_guards_a_division_in_several_steps_reaches_it(name: str) -> None:
    fp32 = network(GUARDS[name])
    expected = open_onnx(fp32)(edges())
    found = open_onnx(rounded_in_fp32(in_fp16(fp32)))(edges())
    assert np.isfinite(expected).all()
    assert (largest(found) <= 2 * largest(expected)).all()  # no NaN, and no multiple of 1e12


def largest(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    peaks: npt.NDArray[np.float32] = np.abs(features.reshape(len(features), -1)).max(1)
    return peaks


def in_fp16(fp32: onnx.ModelProto) -> onnx.ModelProto:
    return to_low(fp32, Precision.FP16, choose_islands(fp32, Measured(), Precision.FP16).keys())


def test_a_constant_node_stays_as_it_is() -> None:
    fp32 = network(GUARDS["mean of what is guarded"])
    (eps,) = (weight for weight in fp32.graph.initializer if weight.name == "1e-9")
    fp32.graph.initializer.remove(eps)
    inner = helper.make_node("Constant", [], ["eps"], name="eps", value=eps)
    like = helper.make_node("CastLike", ["eps", "x"], ["1e-9"], name="like")
    fp32.graph.node.insert(1, inner)
    fp32.graph.node.insert(2, like)
    fp32 = onnx.shape_inference.infer_shapes(fp32, strict_mode=True)
    assert np.isfinite(open_onnx(rounded_in_fp32(in_fp16(fp32)))(edges())).all()


HARMLESS: dict[str, Nodes] = {
    "its square is a normal number": (
        ("Add", ["x", "0.5"], "a"), ("Mul", ["a", "a"], "d"), ("Div", ["x", "d"], "features"),
    ),
    "more is added to a small one": (
        ("Add", ["x", "1e-3"], "a"), ("Mul", ["a", "a"], "b"), ("Add", ["b", "one"], "d"),
        ("Div", ["x", "d"], "features"),
    ),
    "weights of both signs": (
        ("Add", ["x", "1e-3"], "a"), ("Mul", ["a", "a"], "b"), ("MatMul", ["b", "signs"], "d"),
        ("Div", ["x", "d"], "features"),
    ),
    "a square that a shortcut is added to": (
        ("Mul", ["x", "x"], "a"), ("Add", ["a", "x"], "b"), ("Sqrt", ["b"], "features"),
    ),
    "a square and a normal number": (
        ("Mul", ["x", "x"], "a"), ("Add", ["a", "1e-3"], "b"), ("Sqrt", ["b"], "features"),
    ),
    "no division": (
        ("Add", ["x", "1e-4"], "a"), ("Mul", ["a", "a"], "features"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_can_not_vanish_is_lowered(name: str) -> None:
    assert choose_islands(network(HARMLESS[name]), Measured(), Precision.FP16) == {}


def test_bf16_has_the_range_that_powers_need() -> None:
    fp32 = network((*GUARDS["root of a sum of third powers"][:3], ("Sqrt", ["s"], "features")))
    assert choose_islands(fp32, Measured(), Precision.FP16).keys() == {"p", "s", "features"}
    assert choose_islands(fp32, Measured(), Precision.BF16).keys() == {"p", "s"}


QUANTISED: dict[str, Nodes] = {
    "its sum is a product": (
        ("Add", ["x", "1e-6"], "a"), ("MatMul", ["a", "ones"], "d"), ("Div", ["x", "d"], "f"),
        ("Flatten", ["f"], "features"),
    ),
    "with a constant that fp16 holds": (
        ("Add", ["x", "1e-3"], "a"), ("MatMul", ["a", "ones"], "d"), ("Div", ["x", "d"], "f"),
        ("Flatten", ["f"], "features"),
    ),
    "a result that ends at the constant": (
        ("MatMul", ["x", "ones"], "m"), ("Clip", ["m", "1e-3"], "d"), ("Div", ["x", "d"], "f"),
        ("Flatten", ["f"], "features"),
    ),
    "another product quantises it": (
        ("Add", ["x", "1e-3"], "a"), ("MatMul", ["a", "signs"], "m"), ("Div", ["m", "a"], "n"),
        ("Add", ["n", "x"], "f"), ("Flatten", ["f"], "features"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("placing", "rest"),
    [
        (Placing.ONNXRUNTIME, Rest.FP32),
        (Placing.TENSORRT, Rest.FP32),
        (Placing.TENSORRT, Rest.FP16),
    ],
)
@pytest.mark.parametrize("name", QUANTISED)
def test_what_guards_a_division_is_not_quantised(name: str, placing: Placing, rest: Rest) -> None:
    fp32 = network(QUANTISED[name], weight="signs")
    images = np.random.default_rng(0).uniform(0.5, 1, (8, 8, 8)).astype(np.float32)
    quantised, _ = lower(
        fp32, Precision.INT8, Images(all=images, evaluated=images), floors()[Precision.INT8],
        placing=placing, rest=rest,
    )  # fmt: skip
    assert any(node.op_type == "QuantizeLinear" for node in quantised.graph.node)
    nothing = np.zeros((1, 8, 8), np.float32)
    assert np.isfinite(open_onnx(rounded_in_fp32(quantised))(nothing)).all()
