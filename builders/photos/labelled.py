"""Labelled photos: a folder with one subfolder per class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from builders.photos.unchanged import changed
from zoo.schema.manifest import Preprocess
from zoo.util.digest import sha256_file, sha256_json
from zoo.util.errors import RunError, UsageError
from zoo.util.faults import MachineError, persistently
from zoo.util.names import counted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

LEAST_OF_CLASS = 5
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_EXPECTED = f"it must have one subfolder per class, each with {LEAST_OF_CLASS} photos or more"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Photos and their classes.

    Attributes:
        name: Source of the photos, for tables.
        photos: Decoded photos.
        labels: Class number of each photo.
        imagenet: Whether the class numbers are ImageNet's.
    """

    name: str
    photos: tuple[Image.Image, ...]
    labels: npt.NDArray[np.int64]
    imagenet: bool = False

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(set(self.labels.tolist()))

    def pixels(self, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
        """Returns the photos at a network's input size, ``(N, size, size, 3)``."""
        return _stacked(self.photos, preprocess)


class LabelledSet(BaseModel):
    """Files of a maintainer's labelled photos. The photos never enter a repository.

    Attributes:
        name: Description for records.
        paths: Paths of the photos.
        labels: Class number of each photo.
        sha256: One digest of all files and their labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    sha256: str

    def pixels(self, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
        """Returns the photos at a network's input size, ``(N, size, size, 3)``.

        Raises:
            UsageError: A photo is no longer the one that was hashed.
        """
        self._check_unchanged()
        return _stacked(map(_opened, self.paths), preprocess)

    def opened(self) -> Labelled:
        """Returns the decoded photos.

        Raises:
            UsageError: A photo is no longer the one that was hashed.
        """
        import numpy as np

        self._check_unchanged()
        photos = tuple(map(_opened, self.paths))
        return Labelled(name=self.name, photos=photos, labels=np.array(self.labels))

    def _check_unchanged(self) -> None:
        try:
            actual = digest_of(self.paths, self.labels)
        except OSError as error:
            raise changed("labelled", f"{error.filename}: {error.strerror}") from error
        if actual != self.sha256:
            raise changed("labelled", f"{self.name}: their digest is {actual}, not {self.sha256}")


def _opened(path: Path) -> Image.Image:
    from zoo.inference.preprocess import open_photo  # late, as numpy: plans look at no photos

    return open_photo(path)


def _stacked(photos: Iterable[Image.Image], preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    import numpy as np

    from zoo.inference.preprocess import fit

    return np.stack([fit(photo, preprocess) for photo in photos])


def digest_of(paths: Sequence[Path], labels: Sequence[int]) -> str:
    """Returns one digest of photos and their labels, whatever their order."""
    return sha256_json(sorted(zip(map(sha256_file, paths), labels, strict=True)))


def read_labelled(folder: Path, report: Callable[[str], None]) -> LabelledSet:
    """Returns the photos of a folder that has one subfolder per class.

    Args:
        folder: A maintainer's folder; nothing in it is stored.
        report: Called with each skipped photo or class and the reason.

    Raises:
        UsageError: The folder does not exist or has fewer than two classes of five photos.
    """
    if not folder.is_dir():
        raise UsageError(f"labelled photos, {folder}: no such folder", hint=_EXPECTED)
    paths: list[Path] = []
    labels: list[int] = []
    seen: dict[str, Path] = {}  # a duplicate could be both trained on and evaluated on
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    for number, subfolder in enumerate(classes):
        usable = []
        for path in sorted(subfolder.rglob("*")):
            if path.suffix.lower() not in _SUFFIXES:
                continue
            try:
                persistently(partial(_opened, path), str(path))
            except MachineError:
                raise  # not the photo's fault
            except RunError as error:
                report(f"labelled: {error.message}; skipped")
                continue
            if (same := seen.setdefault(sha256_file(path), path)) != path:
                report(f"labelled: {path} is the same file as {same}; skipped")
                continue
            usable.append(path)
        if len(usable) < LEAST_OF_CLASS:
            report(
                f"labelled: {subfolder.name} has {counted(len(usable), 'usable photo')}, "
                f"{LEAST_OF_CLASS} are needed; skipped"
            )
            continue
        paths += usable
        labels += [number] * len(usable)
    if len(set(labels)) < 2:
        raise UsageError(
            f"labelled photos, {folder}: {len(set(labels))} usable classes; two are needed",
            hint=_EXPECTED,
        )
    return LabelledSet(
        name=f"{len(paths)} photos of {len(set(labels))} classes in a maintainer's folder",
        paths=tuple(paths),
        labels=tuple(labels),
        sha256=digest_of(paths, labels),
    )
