"""Reads a feature cache, as memory-mapped NumPy arrays and as a torch ``Dataset``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from zoo.caft.arguments import whole
from zoo.caft.arrange import READY
from zoo.caft.card import Card, Identity, read_card
from zoo.caft.files import (
    FEATURES,
    HASHES,
    LABELS,
    LOG,
    NO_LABEL,
    STORED,
    SUMS,
    sums_of,
    whole_lines,
)
from zoo.util.digest import sha256_file
from zoo.util.errors import CacheError
from zoo.util.names import counted
from zoo.util.shown import Shown

if TYPE_CHECKING:
    import pandas as pd
    from torch.utils.data import TensorDataset


class FeatureCache(Shown):
    """A finished feature cache. The arrays are memory-mapped, so opening one reads very little.

    A row is a view of a sample; the views of a sample are adjacent, the plain one first. It is also
    a torch ``Dataset`` whose items are the rows' ``(features, label)``: ``DataLoader(cache)``
    works.

    Args:
        folder: The folder that ``zoo features -o`` wrote.
        check_complete: Whether to reject a cache whose pass has not finished.

    Attributes:
        features: ``(samples * views, feature_dim)``, float32 or float16, read only.
        labels: ``(samples,)`` int64; -1 for a sample without a label.
        hashes: ``(samples, 32)`` uint8: SHA-256 of each image.

    Raises:
        CacheError: The cache is missing, unfinished, empty or damaged.
    """

    def __init__(self, folder: str | Path, *, check_complete: bool = True) -> None:
        self.folder = Path(folder)
        self._check_complete = check_complete
        for _ in range(_TRIES):
            self.card = _card(self.folder, check_complete)
            if self.card.samples == 0:
                raise CacheError(f"{self.folder} is empty: none of the images was usable")
            if not (self.folder / LOG).is_file():
                raise CacheError(f"{self.folder} is damaged: it has no {LOG}", hint=_AGAIN)
            self._map_all()
            if read_card(self.folder) == self.card:
                return
        raise CacheError(
            f"{self.folder} is being written", hint="wait until zoo features has finished"
        )

    def _map_all(self) -> None:
        width, rows = self.identity.feature_dim, self.card.samples * self.views
        stored = np.dtype(STORED[self.identity.storage])
        self.features = _map(self.folder, FEATURES, stored, (rows, width))
        self.labels = _map(self.folder, LABELS, np.dtype(np.int64), (self.card.samples,))
        self.hashes = _map(self.folder, HASHES, np.dtype(np.uint8), (self.card.samples, 32))

    @property
    def identity(self) -> Identity:
        """The engine and the settings that made the rows."""
        return self.card.identity

    @property
    def views(self) -> int:
        """Rows per sample."""
        return self.identity.augmentation.views

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        return self.card.labels

    @property
    def plain(self) -> npt.NDArray[Any]:
        """The plain view of each sample, ``(samples, feature_dim)``, memory-mapped."""
        return self.features[:: self.views]

    def names(self) -> Iterator[str]:
        """Yields the samples' names in the order of the arrays."""
        for line, _ in whole_lines(self.folder / LOG):
            if "error" not in line:
                yield line["name"]

    def bad(self) -> Iterator[tuple[str, str]]:
        """Yields the name of each skipped image and the reason."""
        for line, _ in whole_lines(self.folder / LOG):
            if "error" in line:
                yield line["name"], line["error"]

    def labelled(self) -> npt.NDArray[np.int64]:
        """Returns the numbers of the samples that have a label.

        Raises:
            CacheError: Fewer than two classes have one, or the card does not name them all.
        """
        return _labelled(self)

    def check(self) -> None:
        """Checks that everything is what was written; older caches can't tell.

        Raises:
            CacheError: They are damaged.
        """
        _check(self)

    def _facts(self) -> dict[str, str]:
        return {"folder": str(self.folder), **self.card._facts()}

    def rows_of(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Returns the row numbers of samples, ``(len(samples) * views,)``."""
        first = np.asarray(samples, np.int64)[:, None] * self.views
        return np.asarray((first + np.arange(self.views)).reshape(-1))

    def to_pandas(self) -> pd.DataFrame:
        """Returns a ``DataFrame``: ``name``, ``view``, ``label`` (categorical), ``f0``, ``f1`` ...

        The features are those of the file, memory-mapped and read only: nothing is copied until
        pandas needs a copy.

        Raises:
            MissingPackageError: pandas is not installed.
            HeadError: There is not enough memory for the names.
        """
        from zoo.caft.frames import to_pandas

        return to_pandas(self)

    def to_torch(self, device: Any = None) -> TensorDataset:
        """Returns all rows in memory: ``features, labels = cache.to_torch().tensors``.

        Args:
            device: Where the tensors are to be: a torch device or its name.

        Returns:
            A ``TensorDataset`` of features, ``(rows, feature_dim)`` float32, and labels,
            ``(rows,)`` int64, -1 without a label.

        Raises:
            MissingPackageError: torch is not installed.
            HeadError: There is not enough memory.
        """
        from zoo.caft.frames import to_torch

        return to_torch(self, device)

    def __len__(self) -> int:
        return len(self.features)

    @overload
    def __getitem__(self, row: int) -> tuple[npt.NDArray[np.float32], int]: ...

    @overload
    def __getitem__(self, row: slice) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]: ...

    def __getitem__(self, row: int | slice) -> tuple[npt.NDArray[np.float32], Any]:
        """Returns a row's features, ``(feature_dim,)`` float32, and its label, or those of several.

        For a slice, features are ``(rows, feature_dim)``, and labels ``(rows,)`` int64.
        """
        if isinstance(row, slice):
            return self._rows(np.arange(*row.indices(len(self))))
        if not isinstance(row, (int, np.integer)):
            raise TypeError(
                f"a row is a number or a slice, not a {type(row).__name__}; cache.features and "
                "cache.labels are NumPy arrays, which take lists and masks"
            )
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row:,} of {counted(len(self), 'row')}")
        row %= len(self)
        return np.asarray(self.features[row], np.float32), int(self.labels[row // self.views])

    def __getitems__(self, rows: list[int]) -> list[tuple[npt.NDArray[np.float32], int]]:
        """Returns several rows at once; a torch ``DataLoader`` calls this."""
        features, labels = self._rows(np.asarray(rows, np.int64) % len(self))
        return list(zip(features, labels.tolist(), strict=True))

    def batches(
        self, size: int, *, seed: int | None = None
    ) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """Returns all rows once, in batches, as arrays; faster than a ``DataLoader`` of rows.

        Args:
            size: Rows per batch; the last may have fewer.
            seed: Of the order; by default that of the cache.

        Returns:
            Pairs of ``(rows, feature_dim)`` float32 and the rows' labels, ``(rows,)`` int64.

        Raises:
            UsageError: The size is no whole number above 0, or the seed none above -1.
        """
        size = whole("size", size, least=1)
        if seed is not None:
            seed = whole("seed", seed, least=0)
        order = np.arange(len(self))
        if seed is not None:
            np.random.default_rng(seed).shuffle(order)
        return (self._rows(order[start : start + size]) for start in range(0, len(self), size))

    def _rows(
        self, numbers: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Returns features and labels of rows."""
        features = np.asarray(self.features[numbers], np.float32)
        return features, np.asarray(self.labels[numbers // self.views])

    def __reduce__(self) -> tuple[Callable[[Path], FeatureCache], tuple[Path]]:
        """Pickles the path rather than the rows: each process maps the files itself."""
        opened = partial(type(self), check_complete=self._check_complete)
        return opened, (self.folder.resolve(),)


_CHECKED = 4096  # samples at a time
_TRIES = 3  # a pass may replace the arrays while they are opened
_AGAIN = "extract the features again into another folder"


def _labelled(cache: FeatureCache) -> npt.NDArray[np.int64]:
    samples = np.flatnonzero(cache.labels != NO_LABEL)
    classes = np.unique(cache.labels[samples])
    if len(classes) and classes[-1] >= len(cache.label_names):
        raise CacheError(
            f"{cache.folder} is damaged: card.json has no name for class {classes[-1]} of {LABELS}",
            hint=_AGAIN,
        )
    if len(classes) < 2:
        only = f"only '{cache.label_names[int(classes[0])]}'" if len(classes) else "no label"
        raise CacheError(
            f"{cache.folder}: training a head needs at least two classes; there is {only}",
            hint="put each class in its own folder, or use a list file with path,label",
        )
    return samples


def _check(cache: FeatureCache) -> None:
    card = cache.card
    for file, digest in (
        (LOG, card.fingerprint),
        (LABELS, card.digests.get(LABELS)),
        (HASHES, card.digests.get(HASHES)),
    ):
        if card.complete and digest and sha256_file(cache.folder / file) != digest:
            raise CacheError(f"{cache.folder / file} is damaged", hint=_AGAIN)
    if not (cache.folder / SUMS).exists():
        return
    sums = _map(cache.folder, SUMS, np.dtype(np.uint32), (cache.card.samples,))
    for start in range(0, len(sums), _CHECKED):
        rows = cache.features[start * cache.views : (start + _CHECKED) * cache.views]
        found = sums_of(rows, len(rows) // cache.views)
        wrong = np.flatnonzero(found != sums[start : start + _CHECKED])
        if len(wrong):
            name = next(islice(cache.names(), start + int(wrong[0]), None), "")
            raise CacheError(
                f"{cache.folder / FEATURES} is damaged: the features of {name}", hint=_AGAIN
            )


def _map(folder: Path, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    path = folder / name
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header can make NumPy raise anything
        raise CacheError(f"can't read {path}: {error}", hint=_AGAIN) from error
    if stored.dtype != dtype or stored.shape[1:] != shape[1:] or len(stored) < shape[0]:
        raise CacheError(
            f"{path} is {stored.dtype} {stored.shape}, but the card says {dtype} {shape}",
            hint=_AGAIN,
        )
    mapped: npt.NDArray[Any] = stored[: shape[0]]  # a killed pass may leave more rows
    return mapped


def _card(folder: Path, check_complete: bool) -> Card:
    if folder.is_file():
        raise CacheError(
            f"{folder} is a file; a feature cache is a folder",
            hint="create one: zoo features DATASET --model MODEL -o FOLDER",
        )
    if not folder.is_dir():
        raise CacheError(
            f"{folder}: no such folder",
            hint=f"create it: zoo features DATASET --model MODEL -o {shlex.quote(str(folder))}",
        )
    card = read_card(folder)
    if card is None:
        raise CacheError(
            f"{folder} is not a feature cache: it has no card.json",
            hint="create one: zoo features DATASET --model MODEL -o FOLDER",
        )
    if (check_complete and not card.complete) or (folder / READY).exists():
        raise CacheError(
            f"{folder} is incomplete: its zoo features run has not finished",
            hint="run the same zoo features command again; it resumes where it stopped",
        )
    return card
