"""Calibration photos are judged: near-duplicates and flat pictures are no photos of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from support.records import preprocess

from builders.photos.bundled import calibration_paths
from builders.photos.calibration import CalibrationSet, from_folder, shipped
from builders.photos.judged import judge, look_of
from zoo.util.errors import UsageError

Make = Callable[[Image.Image, int], Image.Image]


@cache
def scenes() -> list[Image.Image]:
    return [Image.open(path).convert("RGB").resize((320, 240)) for path in calibration_paths()[:4]]


def shifted(photo: Image.Image, number: int) -> Image.Image:
    return photo.crop((number % 4, number % 3, photo.width - 4 + number % 4, photo.height - 3))


def noisy(photo: Image.Image, number: int) -> Image.Image:
    noise = np.random.default_rng(number).normal(0, 6, (photo.height, photo.width, 3))
    return Image.fromarray(np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8))


def turned(photo: Image.Image, number: int) -> Image.Image:
    """Returns a noisy frame, mirrored or turned in one of seven ways, or as it is."""
    frame = noisy(photo, number)
    return frame.transpose(Image.Transpose(number % 8 - 1)) if number % 8 else frame


def panned(photo: Image.Image, number: int) -> Image.Image:
    """Returns a frame of a pan over three tenths of the width."""
    step = photo.width // 30
    return photo.crop((number * step, number, photo.width - (9 - number) * step, photo.height - 9))


def zoomed(photo: Image.Image, number: int) -> Image.Image:
    """Returns a frame of a zoom to six tenths of the sides."""
    left, top = number * photo.width // 45, number * photo.height // 45
    return photo.crop((left, top, photo.width - left, photo.height - top))


KINDS: dict[str, Make] = {
    "pan": panned,
    "zoom": zoomed,
    "mirrored-and-turned": turned,
    "frames-of-a-scene": shifted,
    "noise": noisy,
    "exposure": lambda photo, n: ImageEnhance.Brightness(photo).enhance(0.8 + 0.03 * n),
    "sizes": lambda photo, n: photo.resize((300 - 7 * n, 225 - 5 * n)),
    "colours": lambda photo, n: ImageEnhance.Color(photo).enhance(0.2 * n),
}


def save(photos: Iterator[Image.Image] | list[Image.Image], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for number, photo in enumerate(photos):
        photo.save(folder / f"{number:03}.png", compress_level=1)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_forty_near_duplicates_of_four_scenes_are_four(kind: str, tmp_path: Path) -> None:
    frames = [KINDS[kind](scene, number) for scene in scenes() for number in range(10)]
    reports: list[str] = []
    photos = from_folder(save(frames, tmp_path / "photos"), reports.append)
    assert photos.distinct is not None
    assert [number // 10 for number in photos.distinct] == [0, 1, 2, 3]
    assert (len(photos.paths), photos.duplicates, photos.flat) == (40, 36, 0)
    assert re.search(r"\b4 of 40\b.*\b36\b.*\b0\b", photos.blame)
    assert sum(" near-duplicate of " in line for line in reports) == 36
    described = photos.describe()
    assert (described.photos, described.distinct) == (40, 4)
    pixels, evaluated = photos.pixels(preprocess(input_size=32))
    assert (len(pixels), tuple(evaluated)) == (40, photos.distinct)


def test_noise_is_counted_like_flat_pictures(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = [
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(31)
    ]
    said: list[str] = []
    photos = from_folder(save([*noise, *scenes()], tmp_path / "photos"), said.append)
    assert (photos.flat, photos.duplicates) == (31, 0)
    assert photos.blame
    with pytest.raises(UsageError):
        from_folder(save(noise * 2, tmp_path / "noise"), said.append)


def test_flat_pictures_are_counted_and_not_evaluated_on(tmp_path: Path) -> None:
    flat = [Image.new("RGB", (64, 64), (level, level, 7)) for level in range(0, 248, 8)]
    photos = from_folder(save([*flat, *scenes()], tmp_path / "photos"), lambda line: None)
    assert (photos.flat, photos.duplicates) == (31, 0)
    assert photos.distinct == (31, 32, 33, 34)


def test_a_set_of_one_scene_is_refused(tmp_path: Path) -> None:
    frames = [noisy(scenes()[0], number) for number in range(40)]
    with pytest.raises(UsageError):
        from_folder(save(frames, tmp_path / "photos"), lambda line: None)


def test_other_pictures_are_distinct(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    small = [Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in range(40)]
    photos = from_folder(
        save([photo.resize((90, 90)) for photo in small], tmp_path / "photos"), lambda line: None
    )
    assert (photos.distinct, photos.blame) == (None, "")
    assert "distinct" not in photos.name  # the keys of such sets stay
    assert not photos.describe().states("distinct")


def test_the_bundled_photos_are_distinct_and_keep_their_name() -> None:
    photos = shipped()
    opened = [Image.open(path) for path in photos.paths]
    assert judge([look_of(photo) for photo in opened]) == list(range(len(opened)))
    assert "distinct" not in photos.name


def test_photos_evaluated_on_other_ones_have_another_name() -> None:
    photos = CalibrationSet(source="folder", paths=(Path("a"), Path("b")), digests=("0", "1"))
    assert photos.model_copy(update={"distinct": (0,)}).name != photos.name
