"""Labelled photos: a folder with a folder for each class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict

from zoo.inference.preprocess import fit, open_photo
from zoo.schema.manifest import Preprocess
from zoo.util.digest import sha256_file, sha256_json
from zoo.util.errors import RunError, UsageError

LEAST_OF_CLASS = 5
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_EXPECTED = f"they are a folder for each class, with {LEAST_OF_CLASS} photos or more in it"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Photos and what they show.

    Attributes:
        name: Where they come from, for tables.
        photos: Decoded.
        labels: Number of each one's class.
        imagenet: Whether the numbers are ImageNet's.
    """

    name: str
    photos: tuple[Image.Image, ...]
    labels: npt.NDArray[np.int64]
    imagenet: bool = False

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(np.unique(self.labels))

    def pixels(self, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
        """Returns the photos at a network's size, ``(N, size, size, 3)``."""
        return np.stack([fit(photo, preprocess) for photo in self.photos])


class LabelledSet(BaseModel):
    """Labelled photos of a maintainer's folder, by their files. They never enter a repository.

    Attributes:
        name: What they are, for records.
        paths: The photos.
        labels: Number of each one's class.
        sha256: Of all files and their labels, as one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    sha256: str

    def pixels(self, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
        """Returns the photos at a network's size, ``(N, size, size, 3)``."""
        return np.stack([fit(open_photo(path), preprocess) for path in self.paths])

    def opened(self) -> Labelled:
        """Returns the photos decoded."""
        photos = tuple(map(open_photo, self.paths))
        return Labelled(name=self.name, photos=photos, labels=np.array(self.labels))


def read_labelled(folder: Path, report: Callable[[str], None]) -> LabelledSet:
    """Reads a folder that has a folder for each class.

    Args:
        folder: The maintainer's; nothing of it is stored.
        report: Takes what was left out, and why.

    Raises:
        UsageError: It is no such folder, or has fewer than two classes of five photos.
    """
    if not folder.is_dir():
        raise UsageError(f"labelled photos, {folder}: no such folder", hint=_EXPECTED)
    paths: list[Path] = []
    labels: list[int] = []
    seen: dict[str, Path] = {}  # one photo in two folds would be known beforehand
    for number, kind in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        found = []
        for path in sorted(kind.rglob("*")):
            if path.suffix.lower() not in _SUFFIXES:
                continue
            try:
                open_photo(path)
            except RunError as error:
                report(f"labelled: {error.message}; left out")
                continue
            if (same := seen.setdefault(sha256_file(path), path)) != path:
                report(f"labelled: {path} is the same file as {same}; left out")
                continue
            found.append(path)
        if len(found) < LEAST_OF_CLASS:
            report(
                f"labelled: {kind.name} is left out; photos that can be used: {len(found)}, "
                f"{LEAST_OF_CLASS} are needed"
            )
            continue
        paths += found
        labels += [number] * len(found)
    if len(set(labels)) < 2:
        raise UsageError(
            f"labelled photos, {folder}: classes that can be used: {len(set(labels))}, "
            "two are needed",
            hint=_EXPECTED,
        )
    return LabelledSet(
        name=f"{len(paths)} photos of {len(set(labels))} classes in a maintainer's folder",
        paths=tuple(paths),
        labels=tuple(labels),
        sha256=sha256_json(sorted(zip(map(sha256_file, paths), labels, strict=True))),
    )
