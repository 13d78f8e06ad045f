"""Splits: which samples a head learns from, which stop it, and which judge it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.util.errors import UsageError

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Numbers of samples, sorted. No image is in two of them, however often the set has it.

    Attributes:
        train: To learn from.
        val: To stop by.
        test: To judge by; nothing else looks at them.
    """

    train: Numbers
    val: Numbers
    test: Numbers

    def without_val(self) -> Split:
        """Returns a split in which what would stop a head is learned from, too."""
        train = np.sort(np.concatenate([self.train, self.val]))
        return Split(train=train, val=self.val[:0], test=self.test)


def split_samples(cache: FeatureCache, *, val: float, test: float, seed: int) -> Split:
    """Splits the labelled samples of a cache, class by class.

    Args:
        cache: Which.
        val: Part that goes to ``val``, 0 to 1.
        test: Part that goes to ``test``.
        seed: Of the draw.

    Raises:
        UsageError: The parts leave nothing to learn from.
        CacheError: Fewer than two classes have a label.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UsageError(
            f"val {val} and test {test} leave nothing to learn from",
            hint="each is a part of the samples, such as 0.1 and 0.2",
        )
    samples = cache.labelled()
    images = cache.hashes[samples, :8].copy().view("<u8")[:, 0]
    return split_by_image(samples, cache.labels[samples], images, val=val, test=test, seed=seed)


def split_by_image(
    samples: Numbers,
    labels: Numbers,
    images: npt.NDArray[np.uint64],
    *,
    val: float,
    test: float,
    seed: int,
) -> Split:
    """Splits samples; the same image always falls on one side.

    Args:
        samples: Their numbers, ``(N,)``.
        labels: Class of each.
        images: What each image is, by digest.
        val: Part for ``val``; a class of few images has at least one to learn from.
        test: Part for ``test``.
        seed: Of the draw.
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
    """How many of a class's images: rounded, at least one, and one at least is left."""
    return 0 if part == 0 else min(max(1, round(part * count)), count - 1)
