"""A network that is not strongly typed: what its ONNX has in fp32 is asked to stay so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
from conftest import NO_WHEEL

from builders.backends.network import hold_to_fp32
from builders.precision import to_low
from builders.precision.graph import name_nodes

TOY = Path(__file__).parent / "data" / "toy.onnx"  # a convolution, a ReLU and a mean


@dataclass
class Type:
    name: str


FLOAT, HALF, INT32 = Type("FLOAT"), Type("HALF"), Type("INT32")


@dataclass
class Tensor:
    name: str
    dtype: Type


class Layer:
    """A layer of a network that is not strongly typed."""

    def __init__(self, kind: str, inputs: list[Tensor], output: Tensor) -> None:
        self.type = Type(kind)
        self._inputs, self._output = inputs, output
        self.num_inputs, self.num_outputs = len(inputs), 1
        self.precision: Type | None = None
        self.stored: Type | None = None

    def get_input(self, index: int) -> Tensor:
        return self._inputs[index]

    def get_output(self, index: int) -> Tensor:
        return self._output

    def set_output_type(self, index: int, dtype: Type) -> None:
        self.stored = dtype


class Network:
    """An fp16 convolution, one that is kept in fp32, and a mean over what both gave."""

    def __init__(self, *, tells: bool, half: Type = HALF) -> None:
        told = half if tells else FLOAT  # of what no layer states itself
        images, low = Tensor("images", FLOAT), Tensor("images_fp16", half)
        weights = Tensor("w", half)
        one, again = Tensor("one", told), Tensor("one_fp32", FLOAT)
        kept, back = Tensor("kept", FLOAT), Tensor("kept_fp16", half)
        relu, shape = Tensor("relu", told), Tensor("shape", INT32)
        last, features = Tensor("relu_fp32", FLOAT), Tensor("features", FLOAT)
        self.layers = {
            "cast": Layer("CAST", [images], low),
            "weights": Layer("CONSTANT", [], weights),
            "one": Layer("CONVOLUTION", [low, weights], one),
            "shape": Layer("SHAPE", [one], shape),
            "to fp32": Layer("CAST", [one], again),
            "kept": Layer("CONVOLUTION", [again], kept),
            "to fp16": Layer("CAST", [kept], back),
            "relu": Layer("ACTIVATION", [back], relu),
            "to the mean": Layer("CAST", [relu], last),
            "mean": Layer("REDUCE", [last], features),
        }
        self.num_layers = len(self.layers)

    def get_layer(self, number: int) -> Layer:
        return list(self.layers.values())[number]


@pytest.mark.parametrize("tells", [True, False])
def test_what_the_onnx_has_in_fp32_is_held_there(tells: bool) -> None:
    network = Network(tells=tells)
    assert hold_to_fp32(network) == 1  # that does the work
    held = {name for name, layer in network.layers.items() if layer.precision is not None}
    assert held == {"kept", "mean"}
    for name in held:
        assert (network.layers[name].precision, network.layers[name].stored) == (FLOAT, FLOAT)
    assert hold_to_fp32(Network(tells=tells, half=FLOAT)) == 0


class Untyped:
    """A layer of TensorRT-RTX's, whose networks are all strongly typed, as if it were not."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self.precision = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def set_output_type(self, index: int, dtype: Any) -> None:
        assert dtype == self.precision


def test_a_parsed_network_tells_what_is_fp32(tmp_path: Path) -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason=f"{NO_WHEEL} TensorRT-RTX")
    model = onnx.load(TOY)
    name_nodes(model)
    (mean,) = (node.name for node in model.graph.node if "Mean" in node.op_type)
    onnx.save(to_low(model, "fp16", {mean}), tmp_path / "fp16.onnx")
    log = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(log)
    parsed = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert rtx.OnnxParser(parsed, log).parse_from_file(str(tmp_path / "fp16.onnx"))
    layers = [Untyped(parsed.get_layer(number)) for number in range(parsed.num_layers)]

    class Network:
        num_layers = len(layers)
        get_layer = staticmethod(layers.__getitem__)

    assert hold_to_fp32(Network()) == 0  # a mean is no work
    assert [one.name for one in layers if one.precision is not None] == [mean]
