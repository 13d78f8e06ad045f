"""Preprocessing of photos into network input: resize, crop, scale and normalise.

Computes the same as timm's evaluation transform (``timm.data.create_transform``) with only Pillow
and numpy. A test compares the two for every manifest.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from zoo.inference.crop import border_colour, place
from zoo.inference.formats import INSTALL, missing_package, register
from zoo.schema.closed import complete
from zoo.schema.manifest import Interpolation, Preprocess
from zoo.util.errors import RunError
from zoo.util.loading import LARGEST_PHOTO, LONGEST, read_regular

_FILTERS = complete(
    Interpolation,
    {
        Interpolation.BICUBIC: Image.Resampling.BICUBIC,
        Interpolation.BILINEAR: Image.Resampling.BILINEAR,
        Interpolation.LANCZOS: Image.Resampling.LANCZOS,
    },
)
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Exif = Literal["ignore", "apply"]
"""What is done with a photo's EXIF orientation. A TIFF's own orientation is always applied."""

_BYTES_PER_PIXEL = 16  # at most, with the copies that 16-bit grey needs on its way to RGB


def open_photo(
    source: Path | BinaryIO, exif: Exif = "ignore", least: int | None = None
) -> Image.Image:
    """Opens a photo as RGB, 8 bits a channel; 16-bit grey is scaled.

    Args:
        source: A file, or its bytes as a stream; messages name the file.
        exif: Whether to turn the photo as its EXIF orientation says.
        least: If given, a JPEG file may be decoded at a half, a quarter or an eighth of its size,
            if its shorter side does not become less than this.

    Raises:
        RunError: The file does not exist, Pillow can't read it, or its aspect ratio is too large.
    """
    name = f"{source}: " if isinstance(source, Path) else ""
    try:
        stream = io.BytesIO(_content(source)) if isinstance(source, Path) else source
        with _opened(stream) as image:
            _reduce(image, least)
            return as_rgb(image, exif, name)
    except RunError:
        raise
    except FileNotFoundError as error:
        raise RunError(f"{name}no such file") from error
    except Exception as error:  # a damaged file can make Pillow raise anything
        reason: object = error
        if isinstance(error, UnidentifiedImageError):
            reason = _unidentified(stream)
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise RunError(f"{name}can't be read as an image: {reason}") from error


def _unidentified(stream: BinaryIO) -> str:
    """Returns why Pillow does not know the format of a file."""
    stream.seek(0)
    package = missing_package(stream.read(12))
    if package is None:
        return "unknown format"
    return f"{package} is not installed ({INSTALL})"


def decoded_size(data: bytes, least: int | None = None) -> int:
    """Returns the bytes of memory that decoding a photo takes at most, by its header.

    Args:
        data: The photo's file.
        least: See :func:`open_photo`.

    Returns:
        0 if the file can't be opened, which :func:`open_photo` explains.
    """
    try:
        with _opened(io.BytesIO(data)) as image:
            _reduce(image, least)
            return image.width * image.height * _BYTES_PER_PIXEL
    except Exception:  # a damaged file can make Pillow raise anything
        return 0


def _reduce(image: Image.Image, least: int | None) -> None:
    """Has Pillow decode a JPEG file at a fraction of its size, as :func:`open_photo` says."""
    if least is not None:
        share = least / min(image.size)
        image.draft(None, (math.ceil(image.width * share), math.ceil(image.height * share)))


def _content(path: Path) -> bytes:
    return read_regular(path, LARGEST_PHOTO)


def _opened(source: BinaryIO) -> Image.Image:
    """Opens an image; packages for further formats are imported when one turns up."""
    try:
        return Image.open(source)
    except UnidentifiedImageError:
        if not register():
            raise
        source.seek(0)
        return Image.open(source)


def as_rgb(image: Image.Image, exif: Exif = "ignore", name: str = "") -> Image.Image:
    """Returns a photo as RGB, 8 bits a channel: the same for a file and for Pillow's image of it.

    Args:
        image: Any size, any mode; 16-bit grey is scaled.
        exif: Whether to turn it as its EXIF orientation says.
        name: What messages start with.

    Raises:
        RunError: Its aspect ratio is too large, or its values have no defined range.
    """
    _check_aspect(*image.size, name)
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) // 257).astype(np.uint8)
        rgb = Image.fromarray(grey).convert("RGB")
    elif image.mode in ("I", "F"):
        raise RunError(
            f"{name}pixels of mode {image.mode} have no defined range, so they can't be scaled to "
            "8 bits"
        )
    else:
        rgb = image.convert("RGB")
    turn = _TURNS.get(orientation_of(image)) if exif == "apply" else None
    return rgb if turn is None else rgb.transpose(turn)


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF orientation of a photo, 1 to 8; 1 if it has none."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF, sound pixels
        return 1
    return value if value in _TURNS else 1


def read_file(path: Path) -> bytes:
    """Returns the bytes of a photo's file.

    Raises:
        RunError: There is no such file, or it can't be read.
    """
    try:
        return _content(path)
    except FileNotFoundError as error:
        raise RunError(f"{path}: no such file") from error
    except OSError as error:
        raise RunError(f"{path}: can't be read: {error.strerror}") from error


def fit(image: Image.Image, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Resizes an image and takes its centre, as the crop mode says.

    Args:
        image: An image of any size and mode.
        preprocess: Preprocessing of the model; all but its mean and std is used, and the mean as
            the colour of a border.

    Returns:
        ``(height, width, 3)`` RGB pixels.
    """
    width, height = image.size
    placing = place(np.array([width]), np.array([height]), preprocess)
    new_width, new_height, left, top = (int(value[0]) for value in placing)
    interpolation = _FILTERS[preprocess.interpolation]
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    # Rows first, then columns: left to itself, Pillow 13 begins with the columns of tall photos,
    # and no other version does; each pass rounds to 8 bits.
    rows = rgb.resize((new_width, height), interpolation)
    if new_width > preprocess.width:  # a column depends on no other, so only the input's are made
        rows = rows.crop((left, 0, left + preprocess.width, height))
        left = 0
    resized = rows.resize((rows.width, new_height), interpolation)
    if new_width >= preprocess.width and new_height >= preprocess.height:
        made = resized.crop((left, top, left + preprocess.width, top + preprocess.height))
    else:
        made = Image.new("RGB", (preprocess.width, preprocess.height), border_colour(preprocess))
        made.paste(resized, (-left, -top))
    return np.asarray(made, dtype=np.uint8)


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


def as_photo(
    image: Image.Image | npt.NDArray[np.uint8] | Path | str | bytes | bytearray | memoryview,
    exif: Exif = "ignore",
) -> Image.Image:
    """Returns a photo as Pillow has it, RGB.

    Args:
        image: Pillow's own, a file or its bytes, or pixels: ``(H, W, 3)`` RGB, ``(H, W, 4)`` RGBA,
            ``(H, W)`` grey or ``(H, W, 2)`` grey and alpha, uint8; grey may be bool, or uint16 of
            any byte order, which is scaled.
        exif: Whether to turn it as its EXIF orientation says.

    Raises:
        RunError: The file can't be read, or the array has the wrong shape or type.
    """
    if isinstance(image, Image.Image):
        try:
            return as_rgb(image, exif)
        except RunError:
            raise
        except Exception as error:  # Pillow reads a file when its pixels are asked for
            raise RunError(f"can't be read as an image: {error}") from error
    if isinstance(image, (str, Path)):
        return open_photo(Path(image), exif)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return open_photo(io.BytesIO(image), exif)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    grey = pixels.ndim == 2 and pixels.dtype in (np.bool_, np.uint8, np.uint16)
    colour = pixels.ndim == 3 and pixels.shape[2] in (2, 3, 4) and pixels.dtype == np.uint8
    if not (grey or colour):
        raise RunError(
            f"unsupported image array of type {pixels.dtype} and shape {pixels.shape}",
            hint="expected uint8 (H, W, 3) for a photo or float32 (N, 3, H, W) for a batch",
        )
    check_shape(pixels.shape)
    return as_rgb(Image.fromarray(pixels))


def check_shape(shape: tuple[int, ...]) -> None:
    """Checks the height and width of an array of pixels.

    Raises:
        RunError: It has no pixels, or its aspect ratio is too large.
    """
    if 0 in shape:
        raise RunError(f"an image of shape {shape} has no pixels")
    _check_aspect(shape[1], shape[0])


def _check_aspect(width: int, height: int, name: str = "") -> None:
    if not min(width, height):
        raise RunError(f"{name}an image of {width} x {height} pixels has none")
    if max(width, height) > LONGEST * min(width, height):
        raise RunError(
            f"{name}{width} x {height} pixels: aspect ratios above {LONGEST}:1 are not supported"
        )


def batch_of(images: Iterable[Image.Image], preprocess: Preprocess) -> npt.NDArray[np.float32]:
    """Preprocesses photos of any size to a float32 batch ``(N, 3, H, W)``."""
    return normalise(np.stack([fit(image, preprocess) for image in images]), preprocess)
