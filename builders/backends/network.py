"""Parses an ONNX into a network with optimisation profiles, for TensorRT and TensorRT-RTX.

Polygraphy decides at import which of the two it uses, so backends set its environment variable
before they import this module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polygraphy.backend.trt import NetworkFromOnnxPath, Profile
from typing_extensions import assert_never

from zoo.schema.manifest import BatchRange
from zoo.schema.precisions import PRECISION_FACTS, Lowering, Precision
from zoo.util.errors import BuildError

_WORK = ("CONVOLUTION", "MATRIX_MULTIPLY")
_FLOATS = ("FLOAT", "HALF")
_NOT_COMPUTING = ("CAST", "CONSTANT", "IDENTITY")


def parse_network(
    onnx: Path, batches: Sequence[BatchRange], precision: Precision, *, strongly_typed: bool
) -> tuple[Any, list[Profile], tuple[int, ...]]:
    """Parses an ONNX and creates an optimisation profile per batch range.

    Args:
        onnx: The normalised ONNX.
        batches: The batch ranges.
        precision: The engine's precision; a strongly typed network must compute in it.
        strongly_typed: Whether layers run in exactly the types of the ONNX.

    Returns:
        Polygraphy's builder, network and parser; the profiles; and the shape of an image.

    Raises:
        PolygraphyException: The parser rejects the ONNX; its log contains the reason.
        BuildError: The network computes in another precision.
    """
    parsed = NetworkFromOnnxPath(str(onnx), strongly_typed=strongly_typed)()
    if strongly_typed:
        check_types(parsed[1], precision)
    tensor = parsed[1].get_input(0)
    image = tuple(tensor.shape)[1:]
    profiles = [
        Profile().add(tensor.name, (batch.min, *image), (batch.opt, *image), (batch.max, *image))
        for batch in batches
    ]
    return parsed, profiles, image


def check_types(network: Any, precision: Precision) -> None:
    """Checks that a strongly typed network computes in the precision of the engine's name.

    An engine computes in the types of its strongly typed network. Engines for other GPUs can't be
    inspected here, so for them this check is the only evidence.

    Args:
        network: The TensorRT network.
        precision: The engine's precision.

    Raises:
        BuildError: None of the convolutions and matrix products are in the precision; for fp32, not
            all are; for int8, nothing is quantised. How many operators may stay in a higher
            precision is decided when the ONNX is lowered.
    """
    layers = _layers(network)
    types = Counter(layer.get_output(0).dtype.name for layer in layers if layer.type.name in _WORK)
    facts = PRECISION_FACTS[precision]
    own = types[facts.tensorrt]
    match facts.lowering:
        case Lowering.NONE:
            matches = own == types.total()
        case Lowering.TYPED:
            matches = own > 0 or not types
        case Lowering.QUANTISED:
            if not any(layer.type.name == "QUANTIZE" for layer in layers):
                raise BuildError(f"the network of the {precision} engine quantises nothing")
            matches = True
        case _:
            assert_never(facts.lowering)
    if not matches:
        raise _other_precision(precision, types)


def weighted_in_fp32(network: Any) -> int:
    """Returns how many layers with weights are fp32 in a strongly typed network."""
    layers = _layers(network)
    weighted = _weighted(layers)
    return sum(layer.get_output(0).dtype.name == "FLOAT" for layer in weighted)


def hold_to_fp32(network: Any, trt: Any) -> int:
    """Constrains the layers that are fp32 in the ONNX to fp32, in a weakly typed network.

    The fp16 flag allows fp16 in all layers: without these constraints, TensorRT 8.6 ran the layers
    that were kept in fp32 in fp16 (``docs/results/h200-trt8.6``). In a weakly typed network every
    tensor is FLOAT, so types are inferred from casts and weights and propagated from layer to
    layer as in the ONNX.

    Args:
        network: The TensorRT network of an fp16 ONNX.
        trt: The ``tensorrt`` module.

    Returns:
        The number of layers with weights that are constrained.

    Raises:
        BuildError: No layer with weights is fp16.
    """
    layers = _layers(network)
    types: dict[str, str] = {}
    for layer in layers:
        tensors = (layer.get_input(index) for index in range(layer.num_inputs))
        present = [tensor for tensor in tensors if tensor is not None]
        input_types = (types.get(tensor.name, tensor.dtype.name) for tensor in present)
        result = _stated(layer, trt) or next((t for t in input_types if t in _FLOATS), None)
        for index in range(layer.num_outputs):
            tensor = layer.get_output(index)
            own = tensor.dtype.name
            types[tensor.name] = result if result and own in _FLOATS else own
            if types[tensor.name] == "FLOAT" and layer.type.name not in _NOT_COMPUTING:
                layer.precision = trt.DataType.FLOAT
                layer.set_output_type(index, trt.DataType.FLOAT)
    weighted = Counter(types[layer.get_output(0).name] for layer in _weighted(layers))
    if weighted and not weighted["HALF"]:
        raise _other_precision(Precision.FP16, weighted)
    return weighted["FLOAT"]


def _stated(layer: Any, trt: Any) -> str | None:
    """Returns the output type of a cast or of a layer with weights, None for other layers."""
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


def _other_precision(precision: Precision, types: Counter[str]) -> BuildError:
    counts = ", ".join(f"{count} {name}" for name, count in types.most_common())
    return BuildError(
        f"the network does not compute in {precision}: its convolutions and matrix products are "
        f"{counts}",
        hint="report this to the maintainers: the export returned an ONNX of another precision",
    )


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(number) for number in range(network.num_layers)]


def _weighted(layers: Sequence[Any]) -> list[Any]:
    """Returns the convolutions and matrix products with weights, not those of two activations."""
    weights: set[str] = set()
    weighted = []
    for layer in layers:
        kind = layer.type.name
        # The parser puts a shuffle between a product and its weights, to match dimensions.
        if kind == "CONSTANT" or (kind == "SHUFFLE" and layer.get_input(0).name in weights):
            weights.add(layer.get_output(0).name)
        elif kind == "CONVOLUTION" or (kind in _WORK and layer.get_input(1).name in weights):
            weighted.append(layer)
    return weighted
