"""Standardised rows of a cache for training, kept in memory if they fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.util.errors import HeadError

if TYPE_CHECKING:
    import torch

_CHUNK = 65_536  # rows per chunk in passes over all rows
_NUMBERS = 1 << 20  # features per chunk of a sum
_IN_MEMORY = 2 << 30  # most bytes of features kept in memory; more are read when needed


def standardise(
    cache: FeatureCache, samples: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns the mean and 1 / standard deviation of samples' features, computed in chunks."""
    rows = cache.rows_of(samples)
    total = np.zeros(cache.identity.feature_dim, np.float64)
    squares = np.zeros_like(total)
    step = max(1, _NUMBERS // cache.identity.feature_dim)
    for start in range(0, len(rows), step):
        part = np.asarray(cache.features[rows[start : start + step]], np.float64)
        total += part.sum(axis=0)
        squares += np.square(part).sum(axis=0)
    mean = total / len(rows)
    if not np.isfinite(mean).all():
        raise HeadError(
            f"{cache.folder} has features that are not finite numbers",
            hint="the cache is damaged: extract the features again into another folder",
        )
    deviation = np.sqrt(np.maximum(squares / len(rows) - mean**2, 0))
    dead = deviation <= 1e-6 * max(1.0, float(deviation.max()))
    return mean.astype(np.float32), np.where(dead, 0, 1 / np.where(dead, 1, deviation)).astype(
        np.float32
    )


class Rows:
    """Standardised rows as torch tensors: in memory if they fit, else read when needed."""

    def __init__(
        self, cache: FeatureCache, samples: Any, mean: Any, scale: Any, device: torch.device
    ) -> None:
        import torch

        self._cache, self._mean, self._scale = cache, mean, scale
        self._rows = cache.rows_of(samples)
        self.labels = torch.from_numpy(np.repeat(cache.labels[samples], cache.views)).to(device)
        self._device = device
        size = 4 * len(self._rows) * cache.identity.feature_dim
        self._kept = self._read(self._rows) if size <= _IN_MEMORY else None

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

        for start in range(0, len(self), _CHUNK):
            end = min(start + _CHUNK, len(self))
            yield self.take(torch.arange(start, end, device=self._device))

    def _read(self, rows: Any) -> torch.Tensor:
        import torch

        part = (np.asarray(self._cache.features[rows], np.float32) - self._mean) * self._scale
        return torch.from_numpy(part).to(self._device)
