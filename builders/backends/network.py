"""What TensorRT and TensorRT-RTX have in common: an ONNX becomes a network with profiles.

Polygraphy decides when it is imported which of the two it drives, so this module is imported after
the backend has said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polygraphy.backend.trt import NetworkFromOnnxPath, Profile

from zoo.manifest import BatchRange


def parse_network(
    onnx: Path, batches: Sequence[BatchRange], *, strongly_typed: bool
) -> tuple[Any, list[Profile], tuple[int, ...]]:
    """Parses an ONNX and gives it an optimisation profile per batch range.

    Args:
        onnx: The normalised ONNX.
        batches: The ranges.
        strongly_typed: Whether the types of the ONNX are law.

    Returns:
        Polygraphy's builder, network and parser; the profiles; and the shape of an image.

    Raises:
        PolygraphyException: The parser does not take the ONNX; its log says why.
    """
    parsed = NetworkFromOnnxPath(str(onnx), strongly_typed=strongly_typed)()
    tensor = parsed[1].get_input(0)
    image = tuple(tensor.shape)[1:]
    profiles = [
        Profile().add(tensor.name, (one.min, *image), (one.opt, *image), (one.max, *image))
        for one in batches
    ]
    return parsed, profiles, image
