"""A model's preprocessing in words, and as a program that needs only Pillow and NumPy."""

from __future__ import annotations

from typing_extensions import assert_never

from zoo.inference.crop import border_colour, resized_input
from zoo.schema.index import ModelIndex
from zoo.schema.manifest import CropMode, Preprocess, sides


def resize_words(preprocess: Preprocess) -> str:
    """Returns how a photo becomes an input, up to its pixels, as the beginning of a sentence."""
    height, width = resized_input(preprocess)
    how = f"({preprocess.interpolation})"
    crop = f"crop the centre {preprocess.height} × {preprocess.width}"
    match preprocess.crop_mode:
        case CropMode.CENTER if width == height:
            words = f"Resize the shorter side to {width} pixels {how}, {crop}"
        case CropMode.CENTER:
            words = f"Resize, in its aspect ratio, to cover {height} × {width} pixels {how}, {crop}"
        case CropMode.SQUASH:
            words = f"Resize to {height} × {width} pixels, whatever its aspect ratio {how}"
            words += "" if (height, width) == sides(preprocess.input_size) else f", {crop}"
        case CropMode.BORDER:
            red, green, blue = border_colour(preprocess)
            words = (
                f"Resize, in its aspect ratio, to fit into {height} × {width} pixels {how}, "
                f"{crop}, fill what it does not cover with the colour {red}, {green}, {blue}"
            )
        case _:
            assert_never(preprocess.crop_mode)
    return words


def preprocess_snippet(model: ModelIndex) -> str:
    """Returns Python code that preprocesses a photo for a model with only Pillow and NumPy."""
    preprocess = model.preprocess
    height, width = sides(preprocess.input_size)
    return f"""\
import numpy as np
from PIL import Image

{_fit_code(preprocess)}

mean = np.array({list(preprocess.mean)}, np.float32)
std = np.array({list(preprocess.std)}, np.float32)
pixels = (np.asarray(photo, np.float32) / 255 - mean) / std
batch = pixels.transpose(2, 0, 1)[None].astype(np.float32)  # (1, 3, {height}, {width})"""


def _fit_code(preprocess: Preprocess) -> str:
    """Returns Python code that opens, resizes and crops a photo."""
    (high, wide), crop_mode = resized_input(preprocess), preprocess.crop_mode
    match crop_mode:
        case CropMode.CENTER if isinstance(preprocess.input_size, int) and preprocess.crop <= 1:
            return _square_code(preprocess.input_size, high, preprocess.interpolation)
        case CropMode.CENTER if high == wide:
            resized = f"(max({wide}, int({wide} * width / height)), "
            resized += f"max({high}, int({high} * height / width)))"
        case CropMode.CENTER | CropMode.BORDER:
            larger = "max" if crop_mode is CropMode.BORDER else "min"
            ratio = f"{larger}(height / {high}, width / {wide})"
            resized = f"[max(1, round(side / {ratio})) for side in (width, height)]"
        case CropMode.SQUASH:
            resized = f"({wide}, {high})"
        case _:
            assert_never(crop_mode)
    colour = border_colour(preprocess)
    return f"""\
def start(size, resized):
    return (size - resized) // 2 if resized < size else -round((resized - size) / 2)

whole = Image.open("photo.jpg").convert("RGB")
width, height = whole.size
resized = {resized}
how = Image.Resampling.{preprocess.interpolation.upper()}
whole = whole.resize((resized[0], height), how).resize(resized, how)  # rows, then columns
photo = Image.new("RGB", ({preprocess.width}, {preprocess.height}), {colour})
left, top = start(photo.width, whole.width), start(photo.height, whole.height)
photo.paste(whole, (left, top))"""


def _square_code(size: int, shorter: int, interpolation: str) -> str:
    return f"""\
size, shorter = {size}, {shorter}
photo = Image.open("photo.jpg").convert("RGB")
width, height = photo.size
resized = (shorter, int(shorter * height / width)) if width <= height \\
    else (int(shorter * width / height), shorter)
how = Image.Resampling.{interpolation.upper()}
photo = photo.resize((resized[0], height), how).resize(resized, how)  # rows, then columns
left, top = round((photo.width - size) / 2), round((photo.height - size) / 2)
photo = photo.crop((left, top, left + size, top + size))"""
