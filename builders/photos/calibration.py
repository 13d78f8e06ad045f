"""Calibration images, which lower precisions are calibrated and evaluated on.

They are a maintainer's own (``CALIBRATION=folder``) or crops of photos from pip packages. Records
hold only their digests; the images themselves never enter a repository. None is a golden photo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from builders.photos import bundled
from builders.photos.unchanged import check_unchanged
from zoo.schema.manifest import Preprocess
from zoo.schema.measurements import CalibrationImages
from zoo.util.digest import sha256_file, sha256_json
from zoo.util.errors import RunError, UsageError
from zoo.util.faults import MachineError, persistently
from zoo.util.names import counted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from builders.photos.judged import Look

LEAST = 32
_LEAST_DISTINCT = 2  # below that, no distance between two photos can be measured
_MOST = 256  # more photos cost time without changing the ranges
_EVALUATED = 16
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_EXPECTED = (
    f"photos are {', '.join(sorted(_SUFFIXES))}; without CALIBRATION= the farm uses crops of "
    "photos from its packages"
)
_CROPS = ((0.0, 0.0, 1.0), (0.0, 0.0, 0.6), (0.4, 0.0, 0.6), (0.0, 0.4, 0.6), (0.4, 0.4, 0.6))
"""Left, top and side of each crop of a bundled photo, as fractions: the whole and four corners."""


class CalibrationSet(BaseModel):
    """A set of calibration photos.

    Attributes:
        source: ``shipped`` or ``folder``.
        paths: Photos with distinct digests.
        digests: SHA-256 of each file.
        duplicates: How many are near-duplicates of others.
        flat: How many are flat pictures, or noise.
        distinct: Indices of the remaining ones; None if all of them are distinct.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["shipped", "folder"]
    paths: tuple[Path, ...]
    digests: tuple[str, ...]
    duplicates: int = 0
    flat: int = 0
    distinct: tuple[int, ...] | None = None

    @property
    def blame(self) -> str:
        """Why a precision may fail because of the photos; empty if enough of them are distinct."""
        if self.distinct is None or len(self.distinct) >= LEAST:
            return ""
        return (
            f"the calibration photos may be the cause: only {len(self.distinct)} of "
            f"{len(self.paths)} are distinct ({self.duplicates} near-duplicates, {self.flat} flat "
            f"pictures or noise), at least {LEAST} should be"
        )

    @property
    def crops(self) -> int:
        """Number of images made from the photos."""
        return len(self.paths) * (len(_CROPS) if self.source == "shipped" else 1)

    @property
    def name(self) -> str:
        """The set's name, derived from its contents; part of export keys."""
        what = bundled.calibration_name() if self.source == "shipped" else "a maintainer's folder"
        digest = sha256_json(sorted(self.digests))
        if self.distinct is not None:  # it is evaluated on fewer of them
            what = f"{what}, {len(self.distinct)} distinct"
        return f"{self.crops} crops of {len(self.paths)} photos, {what}, sha256 {digest}"

    def describe(self) -> CalibrationImages:
        """Returns the description of the set for records."""
        described = CalibrationImages(
            source=self.source,
            name=self.name,
            photos=len(self.paths),
            crops=self.crops,
            sha256=tuple(self.digests),
        )
        if self.distinct is None:
            return described
        return described.but(
            distinct=len(self.distinct), duplicates=self.duplicates, flat=self.flat
        )

    def pixels(self, preprocess: Preprocess) -> tuple[npt.NDArray[np.uint8], list[int]]:
        """Returns the images at the network's input size, and which ones to evaluate on.

        Returns:
            ``(crops, size, size, 3)``, and the indices of up to 16 uncropped, distinct photos.

        Raises:
            UsageError: A photo is no longer the one whose digest the set names.
        """
        import numpy as np  # late, as what opens photos: plans look at none

        from zoo.inference.preprocess import fit, open_photo

        for path, digest in zip(self.paths, self.digests, strict=True):
            check_unchanged(path, digest, "calibration")
        crops = _CROPS if self.source == "shipped" else _CROPS[:1]
        images = [
            fit(_crop(photo, *crop), preprocess)
            for photo in map(open_photo, self.paths)
            for crop in crops
        ]
        distinct = range(len(self.paths)) if self.distinct is None else self.distinct
        evaluated = distinct[:: max(1, len(distinct) // _EVALUATED)][:_EVALUATED]
        return np.stack(images), [len(crops) * number for number in evaluated]


def shipped() -> CalibrationSet:
    """Returns the bundled photos, which exclude those of the golden set."""
    paths = bundled.calibration_paths()
    digests = tuple(map(sha256_file, paths))
    assert not set(digests) & bundled.golden_digests()
    return CalibrationSet(source="shipped", paths=paths, digests=digests)


def from_folder(folder: Path, report: Callable[[str], None]) -> CalibrationSet:
    """Returns the photos of a folder and its subfolders.

    Args:
        folder: A maintainer's folder.
        report: Called with each skipped photo and the reason.

    Raises:
        UsageError: The folder does not exist or has fewer than 32 usable photos.
    """
    if not folder.is_dir():
        raise UsageError(f"CALIBRATION={folder}: no such folder", hint=_EXPECTED)
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    usable: dict[str, Path] = {}
    looks: list[Look] = []
    golden = bundled.golden_digests()
    for path in _evenly_spaced_first(photos):
        if len(usable) == _MOST:
            report(f"calibration: using {_MOST} of the {len(photos)} photos of {folder}")
            break
        try:
            look = persistently(partial(_look, path), str(path))
        except MachineError:
            raise  # not the photo's fault
        except RunError as error:
            report(f"calibration: {error.message}; skipped")
            continue
        digest = sha256_file(path)
        if digest in golden:
            report(f"calibration: {path} is a golden photo; skipped")
            continue
        if digest in usable:
            report(f"calibration: {path} is the same file as {usable[digest]}; skipped")
            continue
        usable[digest] = path
        looks.append(look)
    if len(usable) < LEAST:
        raise UsageError(
            f"CALIBRATION={folder}: {counted(len(usable), 'usable photo')}; at least "
            f"{LEAST} are needed",
            hint=_EXPECTED,
        )
    return _judged(folder, usable, looks, report)


def _look(path: Path) -> Look:
    from builders.photos.judged import look_of
    from zoo.inference.preprocess import open_photo

    return look_of(open_photo(path))


def _judged(
    folder: Path, usable: dict[str, Path], looks: list[Look], report: Callable[[str], None]
) -> CalibrationSet:
    """Returns the set of a folder's usable photos; names those that measure nothing new.

    Raises:
        UsageError: Too few are distinct to measure how far apart two photos are.
    """
    from builders.photos.judged import judge

    paths, firsts = tuple(usable.values()), judge(looks)
    for number, first in enumerate(firsts):
        if first is None:
            report(
                f"calibration: {paths[number]} is a flat picture or noise: it is not evaluated on"
            )
        elif first != number:
            report(
                f"calibration: {paths[number]} is a near-duplicate of {paths[first]}: it is not "
                "evaluated on"
            )
    distinct = tuple(number for number, first in enumerate(firsts) if first == number)
    flat = firsts.count(None)
    duplicates = len(paths) - flat - len(distinct)
    if len(distinct) < _LEAST_DISTINCT:
        raise UsageError(
            f"CALIBRATION={folder}: of {len(paths)} photos {len(distinct)} are distinct "
            f"({duplicates} near-duplicates, {flat} flat pictures or noise)",
            hint=_EXPECTED,
        )
    made = CalibrationSet(
        source="folder", paths=paths, digests=tuple(usable), flat=flat, duplicates=duplicates,
        distinct=None if len(distinct) == len(paths) else distinct,
    )  # fmt: skip
    if made.blame:
        report(f"calibration: if a precision fails, {made.blame}")
    return made


def _evenly_spaced_first(paths: Sequence[Path]) -> list[Path]:
    """Returns all photos, an evenly spaced subset first; the others replace unusable ones."""
    spaced = {paths[len(paths) * number // _MOST] for number in range(min(_MOST, len(paths)))}
    return sorted(paths, key=lambda path: path not in spaced)


def _crop(photo: Image.Image, left: float, top: float, side: float) -> Image.Image:
    width, height = photo.size
    box = (left * width, top * height, (left + side) * width, (top + side) * height)
    return photo.crop(box)
