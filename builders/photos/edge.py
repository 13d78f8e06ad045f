"""Pictures at the edge of what a network meets: flat ones and noise, generated, never stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.schema.manifest import InputSize, Preprocess, sides

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

EDGE_PICTURES = ("mean", "grey", "black", "white", "noise")
"""Their names in order; ``mean`` is what the preprocessing turns into zeros."""

_LEVELS = {"grey": 128, "black": 0, "white": 255}


def edge_batch(preprocess: Preprocess, size: InputSize) -> npt.NDArray[np.float32]:
    """Returns the edge pictures, normalised, ``(5, 3, H, W)``: the same on every machine."""
    import numpy as np  # late: what reads a worker's files needs only the names

    from zoo.inference.preprocess import normalise

    shape = (*sides(size), 3)
    pixels = np.zeros((len(EDGE_PICTURES), *shape), np.uint8)
    for number, name in enumerate(EDGE_PICTURES):
        pixels[number] = _LEVELS.get(name, 0)
    pixels[EDGE_PICTURES.index("noise")] = np.random.default_rng(0).integers(
        0, 256, shape, np.uint8
    )
    batch = normalise(pixels, preprocess)
    batch[EDGE_PICTURES.index("mean")] = 0  # no level of a pixel is a channel's mean exactly
    return batch
