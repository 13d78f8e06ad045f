"""A network that is not strongly typed: what its ONNX has in fp32 is asked to stay so."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from support.goldens import raises_golden
from support.paths import DATA
from support.skips import NO_WHEEL

from builders.backends.network import check_types, hold_to_fp32, weighted_in_fp32
from builders.precision import to_low
from zoo.util.errors import BuildError


@dataclass
class Type:
    name: str


FLOAT, HALF, INT32, BOOL = Type("FLOAT"), Type("HALF"), Type("INT32"), Type("BOOL")
NUMPY = {"float32": FLOAT, "float16": HALF, "int32": INT32}


@dataclass
class Tensor:
    name: str
    dtype: Type


class Layer:
    """A layer of a network that is not strongly typed, as 8.6 gives it out."""

    num_outputs = 1

    def __init__(
        self, kind: str, inputs: list[Tensor | None], output: Tensor, states: str = ""
    ) -> None:
        self.type = Type(kind)
        self.num_inputs = len(inputs)
        self._inputs, self._output, self._states = inputs, output, states
        self.precision: Type | None = None
        self.stored: Type | None = None

    def get_input(self, index: int) -> Tensor | None:
        return self._inputs[index]

    def get_output(self, index: int) -> Tensor:
        return self._output

    def set_output_type(self, index: int, dtype: Type) -> None:
        self.stored = dtype


class Cast(Layer):
    @property
    def to_type(self) -> Type:
        return NUMPY[self._states]


class Weighted(Layer):
    @property
    def kernel(self) -> np.ndarray:
        return np.ones(9 if self._states else 0, self._states or "float32")


class Constant(Layer):
    @property
    def weights(self) -> np.ndarray:
        return np.ones(4, self._states)


class Weights:
    def __init__(self, values: np.ndarray) -> None:
        self.dtype, self.size = NUMPY[str(values.dtype)], values.size


TENSORRT: Any = SimpleNamespace(
    ICastLayer=Cast, IConvolutionLayer=Weighted, IConstantLayer=Constant, Weights=Weights,
    DataType=SimpleNamespace(FLOAT=FLOAT),
)  # fmt: skip


class Network:
    """What TensorRT 8.6 parses of an fp16 ONNX: all tensors are FLOAT, whatever the ONNX says.

    A convolution and a matrix product in fp16, a convolution and a product that are kept in fp32,
    a mean over what they gave; a product of two activations, a choice, a cut whose start is not
    given, and a convolution whose kernel is computed.
    """

    def __init__(self, half: str = "float16") -> None:
        self.layers: dict[str, Layer] = {}
        self._add("low", "CAST", "images", states=half)
        self._add("one", "CONVOLUTION", "low", states=half)
        self._add("shape", "SHAPE", "one", dtype=INT32)
        self._add("wide", "CAST", "one", states="float32")
        self._add("kept", "CONVOLUTION", "wide", states="float32")
        self._add("back", "CAST", "kept", states=half)
        self._add("relu", "ACTIVATION", "back")
        self._add("w", "CONSTANT", states=half)
        self._add("sum", "ELEMENTWISE", "w", "relu")
        self._add("w of three", "SHUFFLE", "w")
        self._add("product", "MATRIX_MULTIPLY", "sum", "w of three")
        self._add("wide again", "CAST", "product", states="float32")
        self._add("mean", "REDUCE", "wide again")
        self._add("v", "CONSTANT", states="float32")
        self._add("kept product", "MATRIX_MULTIPLY", "mean", "v")
        self._add("size", "SHAPE", "wide", dtype=INT32)
        self._add("mask", "ELEMENTWISE", "size", "size", dtype=BOOL)
        self._add("chosen", "SELECT", "mask", "back", "relu")
        self._add("cut", "SLICE", "chosen", "", "size")
        self._add("attention", "MATRIX_MULTIPLY", "mean", "wide again")
        self._add("given kernel", "CONVOLUTION", "cut", "sum")
        self._add("features", "IDENTITY", "kept product")
        self.num_layers = len(self.layers)

    def _add(
        self, name: str, kind: str, *inputs: str, states: str = "", dtype: Type = FLOAT
    ) -> None:
        types = {one: layer.get_output(0).dtype for one, layer in self.layers.items()}
        given = [Tensor(one, types.get(one, FLOAT)) if one else None for one in inputs]
        self.layers[name] = Layer(kind, given, Tensor(name, dtype), states)

    def get_layer(self, number: int) -> Layer:
        return list(self.layers.values())[number]


def test_what_the_onnx_has_in_fp32_is_held_there() -> None:
    network = Network()
    assert hold_to_fp32(network, TENSORRT) == 2  # that do work with weights
    held = {name for name, layer in network.layers.items() if layer.precision is not None}
    assert held == {"kept", "mean", "kept product", "attention"}
    for name in held:
        assert (network.layers[name].precision, network.layers[name].stored) == (FLOAT, FLOAT)


def test_where_no_work_is_fp16_the_name_is_wrong() -> None:
    with raises_golden(BuildError, "backends/no-fp16-products", match="5 FLOAT"):
        hold_to_fp32(Network("float32"), TENSORRT)


@pytest.mark.parametrize(
    ("precision", "types", "counted"),
    [
        ("fp32", ("FLOAT", "HALF"), "1 FLOAT, 1 HALF"),
        ("fp16", ("FLOAT", "FLOAT"), "2 FLOAT"),
        ("fp16", ("FLOAT", "HALF"), ""),
        ("fp32", ("FLOAT", "FLOAT"), ""),
        ("fp32", (), ""),
    ],
)
def test_a_typed_network_has_the_precision_of_its_name(
    precision: Any, types: tuple[str, ...], counted: str
) -> None:
    layers = [Layer("CONVOLUTION", [], Tensor("y", Type(name))) for name in types]
    network = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    golden = f"backends/other-types-than-{precision}"
    with raises_golden(BuildError, golden, match=counted) if counted else nullcontext():
        check_types(network, precision)


class Untyped:
    """A layer of TensorRT-RTX's, whose networks are all strongly typed, as 8.6 would give it."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.precision = layer, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__class__":
            self.layer.__class__ = value
        else:
            super().__setattr__(name, value)

    def get_output(self, index: int) -> Tensor:
        tensor = self.layer.get_output(index)
        return Tensor(tensor.name, FLOAT if tensor.dtype.name == "HALF" else tensor.dtype)

    def set_output_type(self, index: int, dtype: Any) -> None:
        assert dtype == self.precision


def parsed_by_rtx(path: Path) -> Any:
    """Parses an ONNX with TensorRT-RTX, or skips."""
    rtx = pytest.importorskip("tensorrt_rtx", reason=f"{NO_WHEEL} TensorRT-RTX")
    log = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(log)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert rtx.OnnxParser(network, log).parse_from_file(str(path))
    return network


def untyped(network: Any) -> Any:
    layers = [Untyped(network.get_layer(number)) for number in range(network.num_layers)]
    return SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__, layers=layers)


def test_a_parsed_network_tells_what_is_fp32() -> None:
    network = untyped(parsed_by_rtx(DATA / "mixed.onnx"))
    import tensorrt_rtx as rtx

    assert hold_to_fp32(network, rtx) == 1
    held = [one.name for one in network.layers if one.precision is not None]
    assert held == ["kept", "mean"]
    with pytest.raises(BuildError, match="1 FLOAT"):
        hold_to_fp32(untyped(parsed_by_rtx(DATA / "toy.onnx")), rtx)


def test_products_of_transformers_have_weights(tmp_path: Path) -> None:
    weights = [
        onnx.numpy_helper.from_array(np.ones((8, 8), np.float32), name) for name in ("w", "v")
    ]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="kept"),
        onnx.helper.make_node("MatMul", ["y", "v"], ["z"], name="low"),
    ]
    x, z = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4, 8])
        for name in ("x", "z")
    )
    graph = onnx.helper.make_graph(nodes, "block", [x], [z], weights)
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.save(to_low(model, "fp16", {"kept"}), tmp_path / "fp16.onnx")
    assert weighted_in_fp32(parsed_by_rtx(tmp_path / "fp16.onnx")) == 1
