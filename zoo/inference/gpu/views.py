"""Computes where each row of a batch comes from, in the layout that the CUDA kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.inference.crop import place
from zoo.schema.manifest import Preprocess

FILTERS = {"box": 0, "bilinear": 1, "bicubic": 2, "lanczos": 3}
"""Numbers of the interpolation filters in ``prepare.cu``."""

_SUPPORT = (0.5, 1.0, 2.0, 3.0)
"""Half the width of each filter, in pixels of the smaller image."""

VIEW = np.dtype(
    [
        *((name, np.int64) for name in ("source", "pitch", "weights", "middle")),
        *(
            (name, np.int32)
            for name in (
                "width", "height", "new_width", "new_height", "left", "top",
                "first", "rows", "taps_x", "taps_y", "flip", "row",
            )
        ),
    ]
)  # fmt: skip
"""Layout of ``View`` in ``prepare.cu``, which documents the fields."""


class Source(NamedTuple):
    """A rectangle of a photo in the GPU's memory.

    Attributes:
        address: Address of the rectangle's first pixel; RGB, 8 bits a channel.
        pitch: Bytes between the starts of consecutive rows.
        width: Width in pixels.
        height: Height in pixels.
        row: Its row in the batch.
        flip: Whether the rectangle is mirrored before it is resized.
        fitted: Whether it is already resized and cropped.
    """

    address: int
    pitch: int
    width: int
    height: int
    row: int
    flip: bool = False
    fitted: bool = False


@dataclass(frozen=True, kw_only=True)
class Views:
    """The views of a batch, and the memory that the kernels need for them.

    Attributes:
        records: One per view, of type :data:`VIEW`.
        weights: Number of weights, 4 bytes each.
        middle: Bytes of the intermediate image between the two passes.
        most_rows: Largest number of intermediate rows of a view.
    """

    records: npt.NDArray[np.void]
    weights: int
    middle: int
    most_rows: int


Table = npt.NDArray[np.int64]
"""A row per source, with the columns of :class:`Source`."""


def stack(address: int, count: int, width: int, height: int) -> Table:
    """Returns the sources of photos of one size that are contiguous in memory, one per row."""
    table = np.zeros((count, len(Source._fields)), np.int64)
    rows = np.arange(count)
    table[:, 0], table[:, 4] = address + rows * (3 * width * height), rows
    table[:, 1:4] = 3 * width, width, height
    return table


def views_of(sources: Sequence[Source] | Table, preprocess: Preprocess) -> Views:
    """Plans each source's resize and crop, as :func:`zoo.inference.preprocess.fit` does.

    Args:
        sources: Rectangles of photos; at least one.
        preprocess: The engine's preprocessing.
    """
    support = _SUPPORT[FILTERS[preprocess.interpolation]]
    views = np.zeros(len(sources), VIEW)
    table = np.asarray(sources, np.int64)
    for number, name in enumerate(("source", "pitch", "width", "height", "row", "flip")):
        views[name] = table[:, number]
    width, height, fitted = table[:, 2], table[:, 3], table[:, 6].astype(bool)
    placing = place(width, height, preprocess)
    new_width = np.where(fitted, preprocess.width, placing.width)
    new_height = np.where(fitted, preprocess.height, placing.height)
    views["new_width"], views["new_height"] = new_width, new_height
    views["left"] = np.where(fitted, 0, placing.left)
    views["top"] = np.where(fitted, 0, placing.top)
    views["taps_x"], views["taps_y"] = (
        _taps(width, new_width, support),
        _taps(height, new_height, support),
    )
    # Without the rows of a border, which depend on no pixel.
    top = np.maximum(views["top"], 0)
    bottom = np.minimum(views["top"] + (preprocess.height - 1), new_height - 1)
    first, _ = _window(top, height, new_height, support)
    _, end = _window(bottom, height, new_height, support)
    views["first"], views["rows"] = first, end - first
    weights = preprocess.width * views["taps_x"].astype(np.int64) + preprocess.height * views[
        "taps_y"
    ].astype(np.int64)
    middle = 3 * preprocess.width * views["rows"].astype(np.int64)
    views["weights"] = np.cumsum(weights) - weights
    views["middle"] = np.cumsum(middle) - middle
    return Views(
        records=views,
        weights=int(weights.sum()),
        middle=int(middle.sum()),
        most_rows=int(views["rows"].max()),
    )


def _taps(
    size: npt.NDArray[np.int64], new_size: npt.NDArray[np.int64], support: float
) -> npt.NDArray[np.int64]:
    """Returns the largest number of pixels that an output pixel depends on."""
    scale = np.maximum(size / new_size, 1.0)
    return 2 * np.ceil(support * scale).astype(np.int64) + 1


def _window(
    place: npt.NDArray[np.int32],
    size: npt.NDArray[np.int64],
    new_size: npt.NDArray[np.int64],
    support: float,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the range of pixels that an output pixel depends on: first, and one past the last."""
    scale = size / new_size
    reach = support * np.maximum(scale, 1.0)
    center = (place + 0.5) * scale
    first = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    return first, np.minimum((center + reach + 0.5).astype(np.int64), size)
