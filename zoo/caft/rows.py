"""Standardised rows of a cache for training, kept in memory if they fit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.caft.memory import available_memory
from zoo.util.errors import HeadError

if TYPE_CHECKING:
    import torch

_CHUNK = 65_536  # most rows per chunk in passes over all rows
_CHUNK_BYTES = 32 << 20  # most bytes of a chunk's features, or of its outputs
_NUMBERS = 1 << 20  # features per chunk of a sum
_IN_MEMORY = 2 << 30  # most bytes of features kept in memory; more are read when needed


def chunk_of(width: int) -> int:
    """Returns the number of rows per chunk, where a row has ``width`` features or outputs."""
    return max(1, min(_CHUNK, _CHUNK_BYTES // (4 * max(1, width))))


def read_rows(cache: FeatureCache, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Returns the features of rows, ``(len(rows), feature_dim)``.

    Raises:
        HeadError: Some are not finite numbers; names the sample.
    """
    features = np.asarray(cache.features[rows], np.float32)
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        sample = int(rows[broken[0]]) // cache.views
        name = next(islice(cache.names(), sample, None), "")
        raise HeadError(
            f"{cache.folder} has features that are not finite numbers: those of {name}",
            hint="the cache is damaged: extract the features again into another folder",
        )
    return features


def standardise(
    cache: FeatureCache, samples: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns the mean and 1 / standard deviation of samples' features, computed in chunks.

    Variances are shrunk towards the mean of all of them, which counts as much as one image.

    Raises:
        HeadError: Some features are not finite numbers.
    """
    rows = cache.rows_of(samples)
    total = np.zeros(cache.identity.feature_dim, np.float64)
    squares = np.zeros_like(total)
    step = max(1, _NUMBERS // cache.identity.feature_dim)
    for start in range(0, len(rows), step):
        part = np.asarray(read_rows(cache, rows[start : start + step]), np.float64)
        total += part.sum(axis=0)
        squares += np.square(part).sum(axis=0)
    mean = total / len(rows)
    variance = np.maximum(squares / len(rows) - mean**2, 0)
    deviation = np.sqrt(variance)
    dead = deviation <= 1e-6 * max(1.0, float(deviation.max()))
    # A feature that happens to be nearly constant in a few images would count for thousands in all
    # others. With many images this changes next to nothing.
    count = len(samples)
    deviation = np.sqrt((count * variance + variance.mean()) / (count + 1))
    return mean.astype(np.float32), np.where(dead, 0, 1 / np.where(dead, 1, deviation)).astype(
        np.float32
    )


class Rows:
    """Standardised rows as torch tensors: in memory if they fit, else read when needed.

    Args:
        cache: The cache.
        samples: Numbers of the samples.
        labels: What to predict of each of them, ``(len(samples), ...)``.
        mean: Subtracted from the features.
        scale: Then multiplied with them.
        device: Where the tensors are.
        width: Most numbers that a row becomes in a head: of its layers' outputs.

    Attributes:
        labels: What to predict of each row.
        chunk: Most rows that go through a head at a time.
    """

    def __init__(
        self,
        cache: FeatureCache,
        samples: npt.NDArray[np.int64],
        labels: npt.NDArray[Any],
        mean: npt.NDArray[np.float32],
        scale: npt.NDArray[np.float32],
        device: torch.device,
        width: int = 1,
    ) -> None:
        import torch

        self._cache, self._mean, self._scale = cache, mean, scale
        self._rows = cache.rows_of(samples)
        self.labels = torch.from_numpy(np.repeat(labels, cache.views, axis=0)).to(device)
        self.chunk = chunk_of(max(width, cache.identity.feature_dim))
        self._device = device
        size = 4 * len(self._rows) * cache.identity.feature_dim
        available = available_memory()
        fits = size <= (_IN_MEMORY if available is None else min(_IN_MEMORY, available // 2))
        self._kept = self._read_all() if fits else None

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the features and labels of rows."""
        if self._kept is not None:
            return self._kept[numbers], self.labels[numbers]
        return self._read(self._rows[numbers.cpu().numpy()]), self.labels[numbers]

    def chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields all rows in order."""
        import torch

        for start in range(0, len(self), self.chunk):
            end = min(start + self.chunk, len(self))
            yield self.take(torch.arange(start, end, device=self._device))

    def _read_all(self) -> torch.Tensor:
        import torch

        kept = torch.empty((len(self._rows), self._cache.identity.feature_dim))
        step = chunk_of(self._cache.identity.feature_dim)
        for start in range(0, len(self._rows), step):
            kept[start : start + step] = self._read(self._rows[start : start + step]).cpu()
        return kept.to(self._device)

    def _read(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        import torch

        part = (read_rows(self._cache, rows) - self._mean) * self._scale
        return torch.from_numpy(part).to(self._device)
