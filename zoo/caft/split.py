"""Splits a cache's samples into training, validation and test samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.caft.targets import Targets
from zoo.caft.targets_file import targets_of
from zoo.util.errors import UsageError

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Sorted sample numbers. No image is in two parts, even if the data set has it several times.

    Attributes:
        train: Training samples.
        val: Validation samples, for early stopping.
        test: Test samples, used only to evaluate the trained head.
    """

    train: Numbers
    val: Numbers
    test: Numbers

    def without_val(self) -> Split:
        """Returns a split whose validation samples are training samples too."""
        train = np.sort(np.concatenate([self.train, self.val]))
        return Split(train=train, val=self.val[:0], test=self.test)


def split_samples(
    cache: FeatureCache, *, val: float, test: float, seed: int, targets: Targets | None = None
) -> Split:
    """Splits the labelled samples of a cache, class by class.

    Args:
        cache: The cache.
        targets: Which samples have a label and which belong together; by default the cache's
            classes.
        val: Fraction of validation samples.
        test: Fraction of test samples.
        seed: Random seed.

    Raises:
        UsageError: The fractions leave no training samples.
        CacheError: Fewer than two classes have a label.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UsageError(
            f"val {val} and test {test} leave no training samples",
            hint="each is a fraction of the samples, such as 0.1 and 0.2",
        )
    targets = targets or targets_of(cache)
    samples = targets.samples
    images = cache.hashes[samples, :8].copy().view("<u8")[:, 0]
    return split_by_image(samples, targets.strata, images, val=val, test=test, seed=seed)


def split_by_image(
    samples: Numbers,
    labels: Numbers,
    images: npt.NDArray[np.uint64],
    *,
    val: float,
    test: float,
    seed: int,
) -> Split:
    """Splits samples so that all copies of an image are in the same part.

    Args:
        samples: Sample numbers, ``(N,)``.
        labels: Class of each sample.
        images: Digest of each sample's image.
        val: Fraction of validation samples; at least one image per class stays for training.
        test: Fraction of test samples.
        seed: Random seed.
    """
    random = np.random.default_rng(seed)
    distinct, first, which = np.unique(images, return_index=True, return_inverse=True)
    part = np.zeros(len(distinct), np.int8)  # 0 train, 1 val, 2 test
    for number in np.unique(labels):
        own = random.permutation(np.flatnonzero(labels[first] == number))
        tested = _share(test, len(own))
        stopped = min(_share(val, len(own)), len(own) - 1 - tested)
        part[own[:tested]] = 2
        part[own[tested : tested + max(0, stopped)]] = 1
    chosen = part[which.reshape(-1)]
    return Split(train=samples[chosen == 0], val=samples[chosen == 1], test=samples[chosen == 2])


def _share(part: float, count: int) -> int:
    """Returns a fraction of a class's images, rounded: at least one, and at least one remains."""
    return 0 if part == 0 else min(max(1, round(part * count)), count - 1)
