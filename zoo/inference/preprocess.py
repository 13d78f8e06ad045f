"""Preprocessing of photos into network input: resize, centre crop, scale and normalise.

Computes the same as timm's evaluation transform (``timm.data.create_transform``) with only Pillow
and numpy. A test compares the two for every manifest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from zoo.schema.manifest import Preprocess
from zoo.util.errors import RunError

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_MAX_ASPECT_RATIO = 100  # resizing the shorter side of a longer image could use gigabytes of memory


def open_photo(source: Path | BinaryIO) -> Image.Image:
    """Opens a photo as 8-bit RGB; 16-bit greyscale is rescaled to 8 bits.

    Args:
        source: A path, which error messages then name, or a binary stream.

    Raises:
        RunError: The file does not exist, Pillow can't read it, or its aspect ratio is too large.
    """
    name = f"{source}: " if isinstance(source, Path) else ""
    try:
        with Image.open(source) as image:
            if max(image.size) > _MAX_ASPECT_RATIO * min(image.size):
                raise RunError(
                    f"{name}{image.width} x {image.height} pixels: aspect ratios above "
                    f"{_MAX_ASPECT_RATIO}:1 are not supported"
                )
            if image.mode.startswith("I;16"):
                return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
            if image.mode in ("I", "F"):
                raise RunError(
                    f"{name}pixels of mode {image.mode} have no defined range, so they can't be "
                    "scaled to 8 bits"
                )
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise RunError(f"{name}no such file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise RunError(f"{name}can't be read as an image: {reason}") from error


def fit(image: Image.Image, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Resizes an image by its shorter side and crops the centre.

    Args:
        image: An image of any size and mode.
        preprocess: Preprocessing of the model; its input size, crop and interpolation are used.

    Returns:
        ``(input_size, input_size, 3)`` RGB pixels.
    """
    size = preprocess.input_size
    shorter = math.floor(size / preprocess.crop)
    width, height = image.size
    if width <= height:
        new = (shorter, int(shorter * height / width))
    else:
        new = (int(shorter * width / height), shorter)
    resized = image.convert("RGB").resize(new, _FILTERS[preprocess.interpolation])
    left, top = round((new[0] - size) / 2.0), round((new[1] - size) / 2.0)
    return np.asarray(resized.crop((left, top, left + size, top + size)), dtype=np.uint8)


def normalise(pixels: npt.NDArray[np.uint8], preprocess: Preprocess) -> npt.NDArray[np.float32]:
    """Scales pixels to 0..1, subtracts the mean and divides by the standard deviation.

    Args:
        pixels: ``(N, H, W, 3)`` RGB pixels.
        preprocess: Preprocessing of the model; its mean and std are used.

    Returns:
        ``(N, 3, H, W)`` float32, C-contiguous.
    """
    mean = np.asarray(preprocess.mean, np.float32)
    std = np.asarray(preprocess.std, np.float32)
    # One pass: (x / 255 - mean) / std
    scaled = pixels * (1 / (255 * std)) - mean / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def normalise_into(
    out: npt.NDArray[np.float32], pixels: npt.NDArray[np.uint8], preprocess: Preprocess
) -> None:
    """Normalises one image like :func:`normalise`, but writes to an existing array.

    Args:
        out: ``(3, H, W)`` array to write to.
        pixels: ``(H, W, 3)`` RGB pixels.
        preprocess: Preprocessing of the model; its mean and std are used.
    """
    mean = np.asarray(preprocess.mean, np.float32)[:, None, None]
    std = np.asarray(preprocess.std, np.float32)[:, None, None]
    np.multiply(pixels.transpose(2, 0, 1), 1 / (255 * std), out=out)
    out -= mean / std


def as_photo(image: Image.Image | npt.NDArray[np.uint8] | Path | str) -> Image.Image:
    """Converts a photo to a Pillow image.

    Args:
        image: A Pillow image, a path, or uint8 pixels: ``(H, W, 3)`` RGB or ``(H, W)`` greyscale.

    Raises:
        RunError: The file can't be read, or the array has the wrong shape or type.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (str, Path)):
        return open_photo(Path(image))
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or not (
        pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    ):
        raise RunError(
            f"unsupported image array of type {pixels.dtype} and shape {pixels.shape}",
            hint="expected uint8 (H, W, 3) for a photo or float32 (N, 3, H, W) for a batch",
        )
    if 0 in pixels.shape:
        raise RunError(f"an image of shape {pixels.shape} has no pixels")
    return Image.fromarray(pixels)


def batch_of(images: Iterable[Image.Image], preprocess: Preprocess) -> npt.NDArray[np.float32]:
    """Preprocesses photos of any size to a float32 batch ``(N, 3, H, W)``."""
    return normalise(np.stack([fit(image, preprocess) for image in images]), preprocess)
