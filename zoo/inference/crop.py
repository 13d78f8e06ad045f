"""Rectangles of photos, and where a photo lies in a network's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from zoo.schema.manifest import CropMode, Preprocess

Sizes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Crop:
    """A rectangle of a photo, mirrored or not.

    Attributes:
        left: Columns to the left of it.
        top: Rows above it.
        width: Pixels.
        height: Pixels.
        flip: Whether it is mirrored.
    """

    left: int
    top: int
    width: int
    height: int
    flip: bool = False


class Placing(NamedTuple):
    """The position of photos in the input, one element per photo.

    Attributes:
        width: Width of the resized photo.
        height: Its height.
        left: Columns of the resized photo to the left of the input; if negative, columns of border
            to the left of the photo.
        top: The same for rows.
    """

    width: Sizes
    height: Sizes
    left: Sizes
    top: Sizes


def place(width: Sizes, height: Sizes, preprocess: Preprocess) -> Placing:
    """Returns to what size photos are resized and which part of it is the input.

    The arithmetic, and what it rounds, is that of timm's evaluation transform.

    Args:
        width: Widths of photos in pixels.
        height: Their heights.
        preprocess: Preprocessing of the model.
    """
    new_width, new_height = _resized(width, height, preprocess)
    return Placing(
        width=new_width,
        height=new_height,
        left=_start(new_width, preprocess.width),
        top=_start(new_height, preprocess.height),
    )


def border_colour(preprocess: Preprocess) -> tuple[int, int, int]:
    """Returns the RGB colour around photos that do not cover the input."""
    match preprocess.crop_mode:
        case CropMode.CENTER | CropMode.SQUASH:  # only at a crop above 1
            return 0, 0, 0
        case CropMode.BORDER:
            red, green, blue = (round(255 * value) for value in preprocess.mean)
            return red, green, blue
        case _:
            assert_never(preprocess.crop_mode)


def resized_input(preprocess: Preprocess) -> tuple[int, int]:
    """Returns height and width that the input has before the crop: those of a resized photo."""
    return int(preprocess.height / preprocess.crop), int(preprocess.width / preprocess.crop)


def _resized(width: Sizes, height: Sizes, preprocess: Preprocess) -> tuple[Sizes, Sizes]:
    high, wide = resized_input(preprocess)
    match preprocess.crop_mode:
        case CropMode.CENTER if high == wide:
            longer = (high * np.maximum(width, height) / np.minimum(width, height)).astype(np.int64)
            upright = width <= height
            return np.where(upright, wide, longer), np.where(upright, longer, high)
        case CropMode.CENTER:
            ratio = np.minimum(height / high, width / wide)
        case CropMode.SQUASH:
            return np.full_like(width, wide), np.full_like(height, high)
        case CropMode.BORDER:
            ratio = np.maximum(height / high, width / wide)
        case _:
            assert_never(preprocess.crop_mode)
    return _rounded(width / ratio), _rounded(height / ratio)


def _rounded(size: npt.NDArray[np.float64]) -> Sizes:
    """Rounds ties to even, as Python's round; a photo keeps a pixel where timm would fail."""
    return np.maximum(np.rint(size), 1).astype(np.int64)


def _start(size: Sizes, side: int) -> Sizes:
    """Returns where the input starts in a resized photo, along one axis."""
    cropped = np.rint((size - side) / 2.0).astype(np.int64)
    return np.where(size < side, -((side - size) // 2), cropped)
