"""Measures, row by row, how far features are from PyTorch's.

Polygraphy's own functions treat a batch as one vector, which hides a single bad row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.schema.floors import NEIGHBOURS
from zoo.schema.measurements import BatchNumbers, PhotoNumbers

_SAME = 1e-6  # of the longest row: closer features belong to the same photo


def compare_rows(
    actual: npt.NDArray[Any], expected: npt.NDArray[Any], golden: npt.NDArray[Any]
) -> BatchNumbers:
    """Measures how far features are from PyTorch's.

    Args:
        actual: The engine's features, ``(B, feature_dim)``.
        expected: PyTorch's features of the same photos, ``(B, feature_dim)``.
        golden: PyTorch's features of all golden photos, ``(N, feature_dim)``; the rows of
            ``expected`` are among them.

    Returns:
        The numbers; not those of the rows where features have another shape or are not finite.
    """
    batch = len(expected)
    if actual.shape != expected.shape:
        return BatchNumbers(batch=batch, finite=False, shape=actual.shape)
    if not np.isfinite(actual).all():
        bad = int((~np.isfinite(actual).all(axis=1)).sum())
        return BatchNumbers(batch=batch, finite=False, rows_not_finite=bad)
    y, r, all_rows = (array.astype(np.float64) for array in (actual, expected, golden))
    error = np.linalg.norm(y - r, axis=1)
    lengths = np.linalg.norm(y, axis=1) * np.linalg.norm(r, axis=1)
    cosine = (y * r).sum(axis=1) / np.maximum(lengths, 1e-30)
    between, reached = _distances(r, all_rows), _distances(y, all_rows)
    own = between <= _SAME * np.linalg.norm(all_rows, axis=1).max()
    relative = error / np.linalg.norm(r, axis=1)
    of_distance = error / np.where(own, np.inf, between).min(axis=1)
    nearest = reached.argmin(axis=1)
    lost = ~own[np.arange(len(r)), nearest]
    return BatchNumbers(
        batch=batch,
        finite=True,
        worst_cosine=float(cosine.min()),
        median_cosine=float(np.median(cosine)),
        worst_relative_error=float(relative.max()),
        worst_distance_error=float(of_distance.max()),
        worst_row=int(cosine.argmin()),
        lost_rows=int(lost.sum()),
        neighbours=_neighbours_kept(np.where(own, np.inf, between), np.where(own, np.inf, reached)),
        photos=_by_photo(own.argmax(axis=1), cosine, relative, of_distance),
    )


def _neighbours_kept(between: npt.NDArray[Any], reached: npt.NDArray[Any]) -> float:
    """Returns the mean share of a row's nearest other photos that remain among its nearest.

    Args:
        between: Distances from PyTorch's rows to all golden photos; infinite to their own.
        reached: The same for the engine's rows.
    """
    count = min(NEIGHBOURS, int(np.isfinite(between).sum(axis=1).min()))
    if count == 0:
        return 1.0
    before, after = (np.argsort(distances, axis=1)[:, :count] for distances in (between, reached))
    kept = (before[:, :, None] == after[:, None, :]).any(axis=2)
    return float(kept.mean())


def _by_photo(
    photo: npt.NDArray[Any],
    cosine: npt.NDArray[Any],
    relative: npt.NDArray[Any],
    of_distance: npt.NDArray[Any],
) -> dict[str, PhotoNumbers]:
    """Returns the worst numbers of each golden photo, by its place in the golden file."""
    return {
        str(number): PhotoNumbers(
            cosine=round(float(cosine[photo == number].min()), 8),
            relative_error=round(float(relative[photo == number].max()), 8),
            distance_error=round(float(of_distance[photo == number].max()), 8),
        )
        for number in np.unique(photo)
    }


def _distances(rows: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns L2 distances, ``(len(rows), len(others))``, without an array of all differences."""
    squares = (rows**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * rows @ others.T
    distances: npt.NDArray[Any] = np.sqrt(np.maximum(squares, 0))
    return distances
