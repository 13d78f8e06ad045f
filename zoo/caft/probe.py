"""Probes: measure the quality of features by a kNN and a linear classifier on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.caft.report import Report, wilson
from zoo.caft.rows import read_rows, standardise
from zoo.caft.settings import Settings
from zoo.caft.split import split_samples
from zoo.caft.train import train_head
from zoo.util.errors import CacheError, UsageError

_TEMPERATURE = 0.07
_CELLS = 1 << 22  # similarities in memory at a time: 16 MiB
_QUERIES = 4096  # most rows classified at a time


@dataclass(frozen=True, kw_only=True)
class Probed:
    """The probes' results on the same held-out samples.

    Attributes:
        neighbours: k of the kNN.
        knn_right: Number of held-out samples that the kNN classifies correctly.
        held_out: Number of held-out samples.
        linear: Report of the linear probe.
        chance: Accuracy of always predicting the most frequent class.
    """

    neighbours: int
    knn_right: int
    held_out: int
    linear: Report
    chance: float

    @property
    def lines(self) -> list[str]:
        """The results as text."""
        low, high = wilson(self.knn_right, self.held_out)
        return [
            f"kNN (k={self.neighbours}): accuracy {self.knn_right / self.held_out:.1%} on "
            f"{self.held_out} held-out images (95% interval {low:.1%} to {high:.1%})",
            f"linear: {self.linear.line}",
            *self.linear.lines[1:],
        ]


def probe(cache: FeatureCache, *, neighbours: int = 20, test: float = 0.2, seed: int = 0) -> Probed:
    """Evaluates features by a kNN and a logistic regression.

    Args:
        cache: Features with labels.
        neighbours: k; capped at the number of training samples.
        test: Fraction of test samples.
        seed: Random seed of the split.

    Raises:
        UsageError: ``neighbours`` or ``test`` is not positive.
        CacheError: Fewer than two classes have a label, or none has two images.
        MissingPackageError: scikit-learn is not installed.
    """
    if neighbours < 1 or test <= 0:
        raise UsageError(f"k={neighbours} and test={test}: both must be positive")
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
    predicted = knn(
        _unit(cache, split.train, mean, scale),
        cache.labels[split.train],
        _unit(cache, split.test, mean, scale),
        neighbours=neighbours,
    )
    _, linear = train_head(cache, settings)
    frequent = np.bincount(cache.labels[split.train]).argmax()
    return Probed(
        neighbours=neighbours,
        knn_right=int((predicted == cache.labels[split.test]).sum()),
        held_out=len(split.test),
        linear=linear,
        chance=float((cache.labels[split.test] == frequent).mean()),
    )


def knn(
    known: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    queries: npt.NDArray[np.float32],
    *,
    neighbours: int,
) -> npt.NDArray[np.int64]:
    """Classifies each row by its nearest neighbours, weighted by their similarity.

    Source: the weighted kNN of Z. Wu et al., "Unsupervised Feature Learning via Non-Parametric
    Instance Discrimination" (2018), temperature 0.07, as DINO and its successors use it.

    Args:
        known: Rows with known classes, ``(N, feature_dim)``, of length 1.
        labels: Their classes, ``(N,)``.
        queries: Rows to classify, ``(M, feature_dim)``, of length 1.
        neighbours: k, at most N.

    Returns:
        The classes of ``queries``, ``(M,)``.
    """
    predicted = np.empty(len(queries), np.int64)
    step = max(1, min(_QUERIES, _CELLS // max(1, len(known))))
    for start in range(0, len(queries), step):
        similar = queries[start : start + step] @ known.T
        place = len(known) - neighbours
        nearest = np.argpartition(similar, place, axis=1)[:, place:]
        weights = np.exp((np.take_along_axis(similar, nearest, axis=1) - 1) / _TEMPERATURE)
        predicted[start : start + step] = _most_voted(labels[nearest], weights)
    return predicted


def _most_voted(
    classes: npt.NDArray[np.int64], weights: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.int64]:
    """Returns the class of each row with the largest sum of weights, the first of equals."""
    order = np.argsort(classes, axis=1, kind="stable")
    ordered = np.take_along_axis(classes, order, axis=1)
    votes = np.take_along_axis(weights, order, axis=1).astype(np.float64)
    # Sums over runs of a class, added left to right as a table of all classes would be.
    for place in range(1, votes.shape[1]):
        votes[:, place] += np.where(
            ordered[:, place] == ordered[:, place - 1], votes[:, place - 1], 0
        )
    best = votes.argmax(axis=1)
    return np.asarray(ordered[np.arange(len(ordered)), best])


def _unit(cache: FeatureCache, samples: Any, mean: Any, scale: Any) -> npt.NDArray[np.float32]:
    rows = read_rows(cache, samples * cache.views)
    rows -= mean
    rows *= scale
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows
