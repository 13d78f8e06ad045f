"""Calibration: the images that lower precisions are measured and tried on.

A maintainer's own (``CALIBRATION=folder``), or crops of the photos that pip packages ship. Only
digests of them go into records; the images themselves never enter a repository. None of them is a
golden photo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict

from builders.photos import bundled
from zoo.inference.preprocess import fit, open_photo
from zoo.schema.manifest import Preprocess
from zoo.schema.measurements import CalibrationImages
from zoo.util.digest import sha256_file, sha256_json
from zoo.util.errors import RunError, UsageError

LEAST = 32
_MOST = 256  # of a folder: more tell no more, and cost time
_JUDGED = 16
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_EXPECTED = (
    f"photos are {', '.join(sorted(_SUFFIXES))}; without CALIBRATION= the farm takes crops of the "
    "photos that its packages ship"
)
_CROPS = ((0.0, 0.0, 1.0), (0.0, 0.0, 0.6), (0.4, 0.0, 0.6), (0.0, 0.4, 0.6), (0.4, 0.4, 0.6))
"""Left, top and side of each crop of a shipped photo, as parts of it: whole, and four corners."""


class CalibrationSet(BaseModel):
    """Which images there are.

    Attributes:
        source: ``shipped`` or ``folder``.
        paths: The photos, distinct by digest.
        digests: SHA-256 of each file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["shipped", "folder"]
    paths: tuple[Path, ...]
    digests: tuple[str, ...]

    @property
    def crops(self) -> int:
        """How many images they make."""
        return len(self.paths) * (len(_CROPS) if self.source == "shipped" else 1)

    @property
    def name(self) -> str:
        """Names the set by its contents; part of export keys."""
        what = bundled.calibration_name() if self.source == "shipped" else "a maintainer's folder"
        digest = sha256_json(sorted(self.digests))
        return f"{self.crops} crops of {len(self.paths)} photos, {what}, sha256 {digest}"

    def describe(self) -> CalibrationImages:
        """Says what a record holds of the set."""
        return CalibrationImages(
            source=self.source,
            name=self.name,
            photos=len(self.paths),
            crops=self.crops,
            sha256=tuple(self.digests),
        )

    def pixels(self, preprocess: Preprocess) -> tuple[npt.NDArray[np.uint8], list[int]]:
        """Returns the images at the network's size, and which of them candidates are judged on.

        Returns:
            ``(crops, size, size, 3)``, and indices: the whole frames of up to 16 photos.
        """
        crops = _CROPS if self.source == "shipped" else _CROPS[:1]
        made = [
            fit(_crop(photo, *crop), preprocess)
            for photo in map(open_photo, self.paths)
            for crop in crops
        ]
        every = max(1, len(self.paths) // _JUDGED)
        judged = range(0, len(self.paths), every)[:_JUDGED]
        return np.stack(made), [len(crops) * number for number in judged]


def shipped() -> CalibrationSet:
    """Returns the photos that pip packages ship, those of the golden set aside."""
    paths = bundled.calibration_paths()
    digests = tuple(map(sha256_file, paths))
    assert not set(digests) & bundled.golden_digests()
    return CalibrationSet(source="shipped", paths=paths, digests=digests)


def from_folder(folder: Path, report: Callable[[str], None]) -> CalibrationSet:
    """Returns the photos of a folder and of those in it.

    Args:
        folder: The maintainer's.
        report: Takes what was left out, and why.

    Raises:
        UsageError: There is no such folder, or fewer than 32 photos in it can be used.
    """
    if not folder.is_dir():
        raise UsageError(f"CALIBRATION={folder}: no such folder", hint=_EXPECTED)
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    taken: dict[str, Path] = {}
    golden = bundled.golden_digests()
    for path in _from_all_over(found):
        if len(taken) == _MOST:
            report(f"calibration: {_MOST} of the {len(found)} photos of {folder} are used")
            break
        try:
            open_photo(path)
        except RunError as error:
            report(f"calibration: {error.message}; left out")
            continue
        digest = sha256_file(path)
        if digest in golden:
            report(f"calibration: {path} is a golden photo; left out")
            continue
        if digest in taken:
            report(f"calibration: {path} is the same file as {taken[digest]}; left out")
            continue
        taken[digest] = path
    if len(taken) < LEAST:
        raise UsageError(
            f"CALIBRATION={folder}: photos that can be used: {len(taken)}, at least {LEAST} are "
            "needed",
            hint=_EXPECTED,
        )
    return CalibrationSet(source="folder", paths=tuple(taken.values()), digests=tuple(taken))


def _from_all_over(paths: Sequence[Path]) -> list[Path]:
    """Returns photos with an even choice of as many as are taken first, for what can't be used."""
    chosen = {paths[len(paths) * number // _MOST] for number in range(min(_MOST, len(paths)))}
    return sorted(paths, key=lambda path: path not in chosen)


def _crop(photo: Image.Image, left: float, top: float, side: float) -> Image.Image:
    width, height = photo.size
    box = (left * width, top * height, (left + side) * width, (top + side) * height)
    return photo.crop(box)
