"""Reading a feature cache: as numpy arrays that stay on the disk, and as a torch ``Dataset``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.card import Card, Identity, read_card
from zoo.caft.writer import FEATURES, HASHES, LABELS, LOG, NO_LABEL, STORED, whole_lines
from zoo.util.errors import CacheError


class FeatureCache:
    """A finished feature cache. The arrays are memory-mapped: opening one reads almost nothing.

    A row is a view of a sample; the views of a sample stand together, the plain one first. As a
    torch ``Dataset`` an item is ``(features, label)`` of a row: ``DataLoader(cache)`` takes it.

    Args:
        folder: What ``zoo features -o`` wrote.
        check_complete: Whether a pass that has not come to its end is an error.

    Attributes:
        features: ``(samples * views, feature_dim)``, float32 or float16, read only.
        labels: ``(samples,)`` int64; -1 where there is none.
        hashes: ``(samples, 32)`` uint8: SHA-256 of each image.

    Raises:
        CacheError: There is none, it is unfinished, empty, or damaged.
    """

    def __init__(self, folder: str | Path, *, check_complete: bool = True) -> None:
        self.folder = Path(folder)
        self._check_complete = check_complete
        self.card = _card(self.folder, check_complete)
        if self.card.samples == 0:
            raise CacheError(f"{self.folder} has no rows: no image could be used")
        width, rows = self.identity.feature_dim, self.card.samples * self.views
        stored = np.dtype(STORED[self.identity.storage])
        self.features = self._map(FEATURES, stored, (rows, width))
        self.labels = self._map(LABELS, np.dtype(np.int64), (self.card.samples,))
        self.hashes = self._map(HASHES, np.dtype(np.uint8), (self.card.samples, 32))

    @property
    def identity(self) -> Identity:
        """Which engine made the rows, and how."""
        return self.card.identity

    @property
    def views(self) -> int:
        """Rows of a sample."""
        return self.identity.augmentation.views

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        return self.card.labels

    @property
    def plain(self) -> npt.NDArray[Any]:
        """The plain view of each sample, ``(samples, feature_dim)``, on the disk."""
        return self.features[:: self.views]

    def names(self) -> Iterator[str]:
        """Yields the samples' names, in the order of the arrays."""
        for line, _ in whole_lines(self.folder / LOG):
            if "error" not in line:
                yield line["name"]

    def bad(self) -> Iterator[tuple[str, str]]:
        """Yields the name of each image that was left out, and why."""
        for line, _ in whole_lines(self.folder / LOG):
            if "error" in line:
                yield line["name"], line["error"]

    def labelled(self) -> npt.NDArray[np.int64]:
        """Returns the numbers of the samples that have a label.

        Raises:
            CacheError: Fewer than two classes have one.
        """
        found = np.flatnonzero(self.labels != NO_LABEL)
        classes = np.unique(self.labels[found])
        if len(classes) < 2:
            only = f"only '{self.label_names[int(classes[0])]}'" if len(classes) else "no label"
            raise CacheError(
                f"{self.folder}: a head needs two classes or more; there is {only}",
                hint="one folder of images for each class, or path,label in a list file",
            )
        return found

    def rows_of(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Returns the numbers of all rows of some samples, ``(len(samples) * views,)``."""
        first = np.asarray(samples, np.int64)[:, None] * self.views
        return np.asarray((first + np.arange(self.views)).reshape(-1))

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, row: int) -> tuple[npt.NDArray[np.float32], int]:
        """Returns features, ``(feature_dim,)`` float32, and label of a row."""
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        return np.asarray(self.features[row], np.float32), int(self.labels[row // self.views])

    def __getitems__(self, rows: list[int]) -> list[tuple[npt.NDArray[np.float32], int]]:
        """Returns several rows at once: what a torch ``DataLoader`` asks for."""
        numbers = np.asarray(rows, np.int64) % len(self)
        found = np.asarray(self.features[numbers], np.float32)
        return list(zip(found, self.labels[numbers // self.views].tolist(), strict=True))

    def __reduce__(self) -> tuple[Callable[[Path], FeatureCache], tuple[Path]]:
        """Sends its place to another process, not its rows: each opens the files itself."""
        opened = partial(type(self), check_complete=self._check_complete)
        return opened, (self.folder.resolve(),)

    def _map(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        path = self.folder / name
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CacheError(f"{path}: can't be read: {error}", hint=_AGAIN) from error
        if found.dtype != dtype or found.shape[1:] != shape[1:] or len(found) < shape[0]:
            raise CacheError(
                f"{path}: is {found.dtype} {found.shape}, the card says {dtype} {shape}",
                hint=_AGAIN,
            )
        mapped: npt.NDArray[Any] = found[: shape[0]]
        return mapped  # a pass that was killed may have begun to add rows


_AGAIN = "make the features again in another folder"


def _card(folder: Path, check_complete: bool) -> Card:
    if not folder.is_dir():
        raise CacheError(
            f"{folder}: no such folder",
            hint=f"zoo features DATASET --model MODEL -o {shlex.quote(str(folder))}",
        )
    card = read_card(folder)
    if card is None:
        raise CacheError(
            f"{folder} is no feature cache: it has no card.json",
            hint="zoo features DATASET --model MODEL -o FOLDER makes one",
        )
    if check_complete and not card.complete:
        raise CacheError(
            f"{folder} is unfinished: the pass that makes it has not come to its end",
            hint="give the same zoo features command again; it goes on where it stopped",
        )
    return card
