"""Probes: measure the quality of features by a kNN and a linear classifier on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.caft.knn import knn
from zoo.caft.progress import Progress, unseen
from zoo.caft.report import Report, wilson
from zoo.caft.rows import read_rows, standardise
from zoo.caft.settings import Settings
from zoo.caft.split import split_samples
from zoo.caft.train import train_head
from zoo.util.errors import CacheError, UsageError
from zoo.util.names import counted

KNN_IMAGES = 10_000
"""Most held-out images that the kNN classifies: comparing all pairs would take the square of the
images, and the 95% interval of as many is at most 2 percentage points wide."""

_KNOWN = 4096  # training images that are read at a time
_CELLS = 1 << 24  # most neighbours in memory: 200 MiB


@dataclass(frozen=True, kw_only=True, repr=False)
class Probed:
    """The probes' results on the same held-out samples.

    Attributes:
        neighbours: k of the kNN.
        knn_right: Number of samples that the kNN classifies correctly.
        knn_images: Number of samples that it classifies: all that are held out, or a sample.
        held_out: Number of held-out samples.
        linear: Report of the linear probe.
        chance: Accuracy of always predicting the most frequent class.
    """

    neighbours: int
    knn_right: int
    knn_images: int
    held_out: int
    linear: Report
    chance: float

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        """The results as text."""
        low, high = wilson(self.knn_right, self.knn_images)
        images = counted(self.held_out, "held-out image")
        if self.knn_images < self.held_out:
            images = f"{self.knn_images:,} of {images}"
        return [
            f"kNN (k={self.neighbours}): accuracy {self.knn_right / self.knn_images:.1%} on "
            f"{images} (95% interval {low:.1%} to {high:.1%})",
            f"linear: {self.linear.line}",
            *self.linear.lines[1:],
        ]


def probe(
    cache: FeatureCache,
    *,
    neighbours: int = 20,
    test: float = 0.2,
    seed: int = 0,
    knn_images: int = KNN_IMAGES,
    progress: Progress = unseen,
) -> Probed:
    """Evaluates features by a kNN and a logistic regression.

    Args:
        cache: Features with labels.
        neighbours: k; capped at the number of training samples.
        test: Fraction of test samples.
        seed: Random seed of the split.
        knn_images: Most test samples that the kNN classifies; of more, a random sample.
        progress: Shows how far it is.

    Raises:
        UsageError: ``neighbours`` or ``knn_images`` is not positive, or ``test`` no fraction.
        CacheError: Fewer than two classes have a label, or none has two images.
        MissingPackageError: scikit-learn is not installed.
    """
    if not 0 < test < 1:
        raise UsageError(f"test {test} is not a fraction of the images, such as 0.2")
    if neighbours < 1 or knn_images < 1:
        raise UsageError(
            f"k {neighbours} and knn_images {knn_images}: each must be a whole number of 1 or more"
        )
    settings = Settings(solver="sklearn", val=0, test=test, seed=seed, weight_decay=1.0)
    split = split_samples(cache, val=0, test=test, seed=seed)
    if not len(split.test):
        raise CacheError(
            f"{cache.folder}: no image is held out to probe with: no class has two images",
            hint="add images, or train without a test set: zoo train-head CACHE --test 0",
        )
    neighbours = min(neighbours, len(split.train))
    mean, scale = standardise(cache, split.train)
    cache.check()
    queries = np.sort(np.random.default_rng(seed).permutation(split.test)[:knn_images])
    units = _Units(cache, mean, scale)
    predicted = _classified(units, split.train, queries, neighbours, progress)
    with progress("linear classifier"):
        _, linear = train_head(cache, settings)
    frequent = np.bincount(cache.labels[split.train]).argmax()
    return Probed(
        neighbours=neighbours,
        knn_right=int((predicted == cache.labels[queries]).sum()),
        knn_images=len(queries),
        held_out=len(split.test),
        linear=linear,
        chance=float((cache.labels[split.test] == frequent).mean()),
    )


@dataclass(frozen=True)
class _Units:
    """Standardised rows of a cache, scaled to a length of 1."""

    cache: FeatureCache
    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    def of(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Returns the rows of samples' plain views."""
        rows = read_rows(self.cache, samples * self.cache.views)
        rows -= self.mean
        rows *= self.scale
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return rows


def _classified(
    units: _Units,
    known: npt.NDArray[np.int64],
    queries: npt.NDArray[np.int64],
    neighbours: int,
    progress: Progress,
) -> npt.NDArray[np.int64]:
    """Returns the class that the kNN predicts for each query."""
    at_once = max(1, _CELLS // neighbours)
    groups = [queries[start : start + at_once] for start in range(0, len(queries), at_once)]
    with progress("kNN", "image", len(groups) * len(known)) as step:

        def parts() -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
            for start in range(0, len(known), _KNOWN):
                part = known[start : start + _KNOWN]
                yield units.of(part), units.cache.labels[part]
                step(len(part))

        return np.concatenate(
            [knn(parts(), units.of(group), neighbours=neighbours) for group in groups]
        )
