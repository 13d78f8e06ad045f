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

from zoo.errors import BuildError
from zoo.manifest import BatchRange
from zoo.target import Precision

_TYPES: dict[Precision, str] = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}
_WORK = ("CONVOLUTION", "MATRIX_MULTIPLY")
_FLOATS = ("FLOAT", "HALF")
_STATED = ("CAST", "CONSTANT", "IDENTITY")  # layers whose result has a type of its own
_LEAST_SHARE = 0.25  # of the layers that do the work; the others may be kept in higher precision


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
        BuildError: Less than a quarter of its convolutions and matrix products are in it, for fp32
            not all, or for int8 nothing is quantised.
    """
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    if precision == "int8":
        if not any(layer.type.name == "QUANTIZE" for layer in layers):
            raise BuildError("an engine named int8 whose network quantises nothing")
        return
    found = Counter(layer.get_output(0).dtype.name for layer in layers if layer.type.name in _WORK)
    own = found[_TYPES[precision]]
    if own < (1.0 if precision == "fp32" else _LEAST_SHARE) * found.total():
        types = ", ".join(f"{count} {name}" for name, count in found.most_common())
        raise BuildError(
            f"an engine named {precision} whose network is not: its convolutions and matrix "
            f"products are {types}",
            hint="tell the maintainers: the export gave the ONNX of another precision",
        )


def hold_to_fp32(network: Any) -> int:
    """Asks for fp32 where the ONNX has it, in a network that is not strongly typed.

    A flag that allows fp16 allows it everywhere: without this, TensorRT 8.6 ran what the advisor
    had kept in fp16 (``docs/results/h200-trt8.6``). Types go from layer to layer, as ONNX has them.

    Args:
        network: TensorRT's, of an fp16 ONNX.

    Returns:
        How many layers are asked to; 0 where nothing that does the work is fp16.
    """
    types: dict[str, str] = {}
    fp32: list[tuple[Any, list[int]]] = []
    half = False
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        kind = layer.type.name
        inputs = [one for i in range(layer.num_inputs) if (one := layer.get_input(i)) is not None]
        taken = [types.get(one.name, one.dtype.name) for one in inputs]
        given = next((name for name in taken if name in _FLOATS), None)
        outputs = []
        for index in range(layer.num_outputs):
            tensor = layer.get_output(index)
            own = tensor.dtype.name
            if own in _FLOATS and kind not in _STATED and given is not None:
                own = given
            types[tensor.name] = own
            if own == "FLOAT":
                outputs.append(index)
            half = half or (own == "HALF" and kind in _WORK)
        if outputs and kind not in _STATED:
            fp32.append((layer, outputs))
    if not half:
        return 0
    for layer, outputs in fp32:
        for index in outputs:
            layer.precision = layer.get_output(index).dtype
            layer.set_output_type(index, layer.precision)
    return len(fp32)
