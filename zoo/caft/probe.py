"""Probes: how good the features are, told by a kNN and by a linear classifier on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.caft.report import Report, wilson
from zoo.caft.rows import standardise
from zoo.caft.settings import Settings
from zoo.caft.split import split_samples
from zoo.caft.train import train_head
from zoo.util.errors import UsageError

_TEMPERATURE = 0.07
_CELLS = 1 << 25  # similarities that are held at once: 128 MiB


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What the probes found, on the same held-out samples.

    Attributes:
        neighbours: k of the kNN.
        knn_right: Held-out samples that the kNN names rightly.
        held_out: How many there are.
        linear: Of the linear probe.
        chance: Accuracy of always naming the most frequent class.
    """

    neighbours: int
    knn_right: int
    held_out: int
    linear: Report
    chance: float

    @property
    def lines(self) -> list[str]:
        """The result in words."""
        low, high = wilson(self.knn_right, self.held_out)
        return [
            f"kNN (k={self.neighbours}): accuracy {self.knn_right / self.held_out:.1%} on "
            f"{self.held_out} held-out images (95% interval {low:.1%} to {high:.1%})",
            f"linear: {self.linear.line}",
            f"always the most frequent class: {self.chance:.1%}",
        ]


def probe(cache: FeatureCache, *, neighbours: int = 20, test: float = 0.2, seed: int = 0) -> Probed:
    """Judges features by a kNN and a logistic regression.

    Args:
        cache: Features with labels.
        neighbours: k; no more than there are samples to compare with.
        test: Part of the samples that judges.
        seed: Of the split.

    Raises:
        UsageError: ``neighbours`` or ``test`` leaves nothing to do.
        CacheError: Fewer than two classes have a label.
        MissingPackageError: scikit-learn is not installed.
    """
    if neighbours < 1 or test <= 0:
        raise UsageError(f"k={neighbours} and test={test}: both must be more than 0")
    settings = Settings(solver="sklearn", val=0, test=test, seed=seed, weight_decay=1.0)
    split = split_samples(cache, val=0, test=test, seed=seed)
    neighbours = min(neighbours, len(split.train))
    mean, scale = standardise(cache, split.train)
    named = knn(
        _unit(cache, split.train, mean, scale),
        cache.labels[split.train],
        _unit(cache, split.test, mean, scale),
        neighbours=neighbours,
    )
    _, linear = train_head(cache, settings)
    frequent = np.bincount(cache.labels[split.train]).argmax()
    return Probed(
        neighbours=neighbours,
        knn_right=int((named == cache.labels[split.test]).sum()),
        held_out=len(split.test),
        linear=linear,
        chance=float((cache.labels[split.test] == frequent).mean()),
    )


def knn(
    known: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    asked: npt.NDArray[np.float32],
    *,
    neighbours: int,
) -> npt.NDArray[np.int64]:
    """Names each row by its nearest neighbours, weighted by their similarity.

    Source: the weighted kNN of Z. Wu et al., "Unsupervised Feature Learning via Non-Parametric
    Instance Discrimination" (2018), temperature 0.07, as DINO and its successors use it.

    Args:
        known: ``(N, feature_dim)``, of length 1.
        labels: ``(N,)``.
        asked: ``(M, feature_dim)``, of length 1.
        neighbours: k, at most N.

    Returns:
        ``(M,)``: classes.
    """
    found = np.empty(len(asked), np.int64)
    step = max(1, _CELLS // len(known))
    for start in range(0, len(asked), step):
        similar = asked[start : start + step] @ known.T
        nearest = np.argpartition(-similar, neighbours - 1, axis=1)[:, :neighbours]
        weights = np.exp((np.take_along_axis(similar, nearest, axis=1) - 1) / _TEMPERATURE)
        votes = np.zeros((len(similar), int(labels.max()) + 1))
        np.add.at(votes, (np.arange(len(similar))[:, None], labels[nearest]), weights)
        found[start : start + step] = votes.argmax(axis=1)
    return found


def _unit(cache: FeatureCache, samples: Any, mean: Any, scale: Any) -> npt.NDArray[np.float32]:
    rows = (np.asarray(cache.plain[samples], np.float32) - mean) * scale
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)
