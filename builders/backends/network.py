"""What TensorRT and TensorRT-RTX have in common: an ONNX becomes a network with profiles.

Polygraphy decides when it is imported which of the two it drives, so this module is imported after
the backend has said so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polygraphy.backend.trt import NetworkFromOnnxPath, Profile
from typing_extensions import assert_never

from zoo.schema.manifest import BatchRange
from zoo.schema.precisions import PRECISION_FACTS, Precision
from zoo.util.errors import BuildError

_WORK = ("CONVOLUTION", "MATRIX_MULTIPLY")
_FLOATS = ("FLOAT", "HALF")
_NOT_COMPUTING = ("CAST", "CONSTANT", "IDENTITY")


def parse_network(
    onnx: Path, batches: Sequence[BatchRange], precision: Precision, *, strongly_typed: bool
) -> tuple[Any, list[Profile], tuple[int, ...]]:
    """Parses an ONNX and gives it an optimisation profile per batch range.

    Args:
        onnx: The normalised ONNX.
        batches: The ranges.
        precision: Of the engine's name; a strongly typed network must be in it.
        strongly_typed: Whether the types of the ONNX are law.

    Returns:
        Polygraphy's builder, network and parser; the profiles; and the shape of an image.

    Raises:
        PolygraphyException: The parser does not take the ONNX; its log says why.
        BuildError: The network is in another precision.
    """
    parsed = NetworkFromOnnxPath(str(onnx), strongly_typed=strongly_typed)()
    if strongly_typed:
        check_types(parsed[1], precision)
    tensor = parsed[1].get_input(0)
    image = tuple(tensor.shape)[1:]
    profiles = [
        Profile().add(tensor.name, (one.min, *image), (one.opt, *image), (one.max, *image))
        for one in batches
    ]
    return parsed, profiles, image


def check_types(network: Any, precision: Precision) -> None:
    """Checks that a strongly typed network does its work in the precision of the engine's name.

    What such a network says is what the engine does; where none can be asked because it runs on
    another GPU, this is the proof that there is.

    Args:
        network: TensorRT's.
        precision: Of its name.

    Raises:
        BuildError: None of its convolutions and matrix products are in it, for fp32 not all, or for
            int8 nothing is quantised. How many may be kept higher is the advisor's business.
    """
    layers = _layers(network)
    found = Counter(layer.get_output(0).dtype.name for layer in layers if layer.type.name in _WORK)
    own = found[PRECISION_FACTS[precision].tensorrt]
    match precision:
        case Precision.FP32:
            named_rightly = own == found.total()
        case Precision.FP16 | Precision.BF16:
            named_rightly = own > 0 or not found
        case Precision.INT8:
            if not any(layer.type.name == "QUANTIZE" for layer in layers):
                raise BuildError("an engine named int8 whose network quantises nothing")
            named_rightly = True
        case _:
            assert_never(precision)
    if not named_rightly:
        raise _misnamed(precision, found)


def weighted_in_fp32(network: Any) -> int:
    """Returns how many layers with weights of a strongly typed network are fp32."""
    layers = _layers(network)
    weighted = _weighted(layers)
    return sum(layer.get_output(0).dtype.name == "FLOAT" for layer in weighted)


def hold_to_fp32(network: Any, trt: Any) -> int:
    """Asks for fp32 where the ONNX has it, in a network that is not strongly typed.

    A flag that allows fp16 allows it everywhere: without this, TensorRT 8.6 ran what the advisor
    had kept in fp16 (``docs/results/h200-trt8.6``). To such a network every tensor is FLOAT, so
    types are told from casts and weights, and go from layer to layer as ONNX has them.

    Args:
        network: TensorRT's, of an fp16 ONNX.
        trt: The ``tensorrt`` module.

    Returns:
        How many layers with weights are asked to.

    Raises:
        BuildError: None with weights is fp16.
    """
    layers = _layers(network)
    types: dict[str, str] = {}
    for layer in layers:
        inputs = [one for i in range(layer.num_inputs) if (one := layer.get_input(i)) is not None]
        taken = (types.get(one.name, one.dtype.name) for one in inputs)
        given = _stated(layer, trt) or next((name for name in taken if name in _FLOATS), None)
        for index in range(layer.num_outputs):
            tensor = layer.get_output(index)
            own = tensor.dtype.name
            types[tensor.name] = given if given and own in _FLOATS else own
            if types[tensor.name] == "FLOAT" and layer.type.name not in _NOT_COMPUTING:
                layer.precision = trt.DataType.FLOAT
                layer.set_output_type(index, trt.DataType.FLOAT)
    weighted = Counter(types[layer.get_output(0).name] for layer in _weighted(layers))
    if weighted and not weighted["HALF"]:
        raise _misnamed(Precision.FP16, weighted)
    return weighted["FLOAT"]


def _stated(layer: Any, trt: Any) -> str | None:
    """Returns the type that a cast or weights give a layer's result; other layers state none."""
    match layer.type.name:
        case "CAST":
            layer.__class__ = trt.ICastLayer
            return str(layer.to_type.name)
        case "CONSTANT":
            layer.__class__ = trt.IConstantLayer
            weights = trt.Weights(layer.weights)
        case "CONVOLUTION":
            layer.__class__ = trt.IConvolutionLayer
            weights = trt.Weights(layer.kernel)
        case _:
            return None
    return str(weights.dtype.name) if weights.size else None


def _misnamed(precision: Precision, found: Counter[str]) -> BuildError:
    types = ", ".join(f"{count} {name}" for name, count in found.most_common())
    return BuildError(
        f"an engine named {precision} whose network is not: its convolutions and matrix "
        f"products are {types}",
        hint="tell the maintainers: the export gave the ONNX of another precision",
    )


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(number) for number in range(network.num_layers)]


def _weighted(layers: Sequence[Any]) -> list[Any]:
    """Returns the layers that do the work with weights; products of two activations do not."""
    weights: set[str] = set()
    found = []
    for layer in layers:
        kind = layer.type.name
        # Between a product and its weights the parser puts a shuffle, for as many dimensions.
        if kind == "CONSTANT" or (kind == "SHUFFLE" and layer.get_input(0).name in weights):
            weights.add(layer.get_output(0).name)
        elif kind == "CONVOLUTION" or (kind in _WORK and layer.get_input(1).name in weights):
            found.append(layer)
    return found
