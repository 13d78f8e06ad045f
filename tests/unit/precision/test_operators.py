"""The table of operators is closed over ONNX, and guards reach the division in fp32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders.precision import rounded_in_fp32, to_low
from builders.precision.islands import choose_islands
from builders.precision.measure import Measured
from builders.precision.onnx_session import open_onnx
from builders.recipe.operators import IN_FP32, IN_LOW, why_fp32


def float_operators() -> set[str]:
    return {
        schema.name
        for schema in onnx.defs.get_all_schemas()
        if schema.domain == ""
        if any("tensor(float16)" in kind.allowed_type_strs for kind in schema.type_constraints)
    }


def test_every_operator_of_onnx_is_in_one_table() -> None:
    assert not IN_FP32.keys() & IN_LOW.keys()
    assert float_operators() <= IN_FP32.keys() | IN_LOW.keys()
    assert why_fp32("OfALaterRelease") is not None


def network(*nodes: tuple[str, list[str], str], eps: float = 1e-12) -> onnx.ModelProto:
    constants = {
        "eps": np.float32(eps),
        "one": np.float32(1),
        "two": np.float32(2),
        "power": np.float32(-0.5),
    }
    constants["axes"] = np.array([1])  # type: ignore[assignment]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [output], name=output) for op, inputs, output in nodes],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made, strict_mode=True)


SQUARES = (("Mul", ["images", "images"], "square"), ("ReduceSum", ["square", "axes"], "sum"))
GUARDS = {
    "clip": (
        ("ReduceL2", ["images", "axes"], "n"), ("Clip", ["n", "eps"], "c"),
        ("Expand", ["c", "shape"], "e"), ("Div", ["images", "e"], "features"),
    ),
    "add, root": (
        *SQUARES, ("Add", ["sum", "eps"], "a"), ("Sqrt", ["a"], "r"),
        ("Div", ["images", "r"], "features"),
    ),
    "reciprocal": (
        *SQUARES, ("Add", ["sum", "eps"], "a"), ("Sqrt", ["a"], "r"), ("Reciprocal", ["r"], "q"),
        ("Mul", ["images", "q"], "features"),
    ),
    "power": (
        *SQUARES, ("Add", ["sum", "eps"], "a"), ("Pow", ["a", "power"], "q"),
        ("Mul", ["images", "q"], "features"),
    ),
    "one over": (
        *SQUARES, ("Max", ["sum", "eps"], "a"), ("Div", ["one", "a"], "q"),
        ("Mul", ["images", "q"], "features"),
    ),
    "reciprocal, scaled": (
        *SQUARES, ("Add", ["sum", "eps"], "a"), ("Sqrt", ["a"], "r"), ("Reciprocal", ["r"], "q"),
        ("Mul", ["q", "two"], "s"), ("Mul", ["images", "s"], "features"),
    ),
    "reciprocal, scaled by what is computed of constants": (
        *SQUARES, ("Add", ["sum", "eps"], "a"), ("Reciprocal", ["a"], "q"), ("Neg", ["two"], "t"),
        ("Mul", ["q", "t"], "s"), ("Mul", ["images", "s"], "features"),
    ),
    "reciprocal, divided": (
        *SQUARES, ("Add", ["sum", "eps"], "a"), ("Reciprocal", ["a"], "q"),
        ("Div", ["q", "two"], "s"), ("Mul", ["images", "s"], "features"),
    ),
    "square of a reciprocal": (
        ("ReduceL1", ["images", "axes"], "sum"), ("Add", ["sum", "eps"], "a"),
        ("Reciprocal", ["a"], "q"), ("Pow", ["q", "two"], "s"), ("Mul", ["images", "s"], "m"),
        ("Mul", ["images", "m"], "features"),
    ),
    "one over, of what is computed of constants": (
        *SQUARES, ("Max", ["sum", "eps"], "a"), ("Neg", ["one"], "t"), ("Div", ["t", "a"], "q"),
        ("Mul", ["images", "q"], "features"),
    ),
    "divided, then divided by": (
        *SQUARES, ("Add", ["sum", "eps"], "a"), ("Sqrt", ["a"], "r"), ("Div", ["r", "two"], "h"),
        ("Div", ["images", "h"], "features"),
    ),
    "logarithm": (("Abs", ["images"], "a"), ("Max", ["a", "eps"], "m"), ("Log", ["m"], "features")),
}  # fmt: skip


@pytest.mark.parametrize("name", GUARDS)
def test_what_guards_a_division_reaches_it(name: str) -> None:
    nodes = [node for node in GUARDS[name] if node[0] != "Expand"]
    nodes = [(op, ["c" if i == "e" else i for i in inputs], out) for op, inputs, out in nodes]
    fp32 = network(*nodes)
    images = np.zeros((2, 8), np.float32)
    expected = open_onnx(fp32)(images)
    assert np.isfinite(expected).all()
    islands = choose_islands(fp32, Measured(), "fp16")
    assert any("division" in reason for reason in islands.values()) or name == "clip"
    typed = to_low(fp32, "fp16", islands.keys())
    assert np.allclose(open_onnx(rounded_in_fp32(typed))(images), expected, rtol=1e-3)


@pytest.mark.parametrize("stated", [{"value_float": 1e-12}, {"value_floats": [1e-12]}])
def test_a_constant_may_be_a_node(stated: dict[str, object]) -> None:
    fp32 = network(*GUARDS["reciprocal"])
    (eps,) = (weight for weight in fp32.graph.initializer if weight.name == "eps")
    fp32.graph.initializer.remove(eps)
    fp32.graph.node.insert(0, helper.make_node("Constant", [], ["eps"], name="eps", **stated))
    fp32 = onnx.shape_inference.infer_shapes(fp32, strict_mode=True)
    islands = choose_islands(fp32, Measured(), "fp16")
    assert any("division" in reason for reason in islands.values())
    typed = to_low(fp32, "fp16", islands.keys())
    assert np.isfinite(open_onnx(rounded_in_fp32(typed))(np.zeros((2, 8), np.float32))).all()


def test_a_small_weight_that_guards_nothing_is_lowered() -> None:
    fp32 = network(("Add", ["images", "eps"], "a"), ("Relu", ["a"], "features"))
    assert choose_islands(fp32, Measured(), "fp16") == {}
    assert choose_islands(network(*GUARDS["power"], eps=1e-3), Measured(), "fp16").keys() == {
        "square", "sum",
    }  # fmt: skip
