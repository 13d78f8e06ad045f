"""Gate: how far features are from PyTorch's, row by row, and whether that is near enough.

Polygraphy's own functors judge a batch as one vector, in which one bad row hides.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from zoo.schema.floors import NEIGHBOURS, Tolerance
from zoo.schema.measurements import BatchNumbers, PhotoNumbers

Number = TypeVar("Number", int, float, bool)

_SAME = 1e-6  # of the longest row: features no farther apart are of one photo


def compare_rows(
    found: npt.NDArray[Any], expected: npt.NDArray[Any], golden: npt.NDArray[Any]
) -> BatchNumbers:
    """Measures how far features are from PyTorch's.

    Args:
        found: The engine's, ``(B, feature_dim)``.
        expected: PyTorch's of the same photos, ``(B, feature_dim)``.
        golden: PyTorch's of all golden photos, ``(N, feature_dim)``; ``expected`` is rows of it.

    Returns:
        The numbers; not those of the rows where features have another shape or are not finite.
    """
    batch = len(expected)
    if found.shape != expected.shape:
        return BatchNumbers(batch=batch, finite=False, shape=found.shape)
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found).all(axis=1)).sum())
        return BatchNumbers(batch=batch, finite=False, rows_not_finite=bad)
    y, r, all_rows = (array.astype(np.float64) for array in (found, expected, golden))
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
    """Returns the mean share of a row's nearest other photos that stay its nearest.

    Args:
        between: Distances of PyTorch's rows to all golden photos, its own at infinity.
        reached: The same of the engine's rows.
    """
    count = min(NEIGHBOURS, int(np.isfinite(between).sum(axis=1).min()))
    if count == 0:
        return 1.0
    wanted, found = (np.argsort(one, axis=1)[:, :count] for one in (between, reached))
    kept = (wanted[:, :, None] == found[:, None, :]).any(axis=2)
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


def find_misses(numbers: BatchNumbers, tolerance: Tolerance) -> list[str]:
    """Returns in words how a batch misses the tolerance; an empty list when it meets it.

    Raises:
        KeyError: A number that decides is missing.
    """
    where = f"batch {_stated(numbers.batch, 'batch')}"
    if not _stated(numbers.finite, "finite"):
        if numbers.shape is not None:
            return [f"{where}: features of shape {numbers.shape}"]
        rows = _stated(numbers.rows_not_finite, "rows_not_finite")
        return [f"{where}: {rows} rows hold NaN or infinity"]
    misses = []
    cosine = _stated(numbers.worst_cosine, "worst_cosine")
    if cosine < tolerance.cosine:
        misses.append(
            f"{where}: row {_stated(numbers.worst_row, 'worst_row')} has cosine {cosine:.6f}, "
            f"at least {tolerance.cosine} is needed"
        )
    for name, error, allowed in (
        ("relative_error", numbers.worst_relative_error, tolerance.relative_error),
        ("distance_error", numbers.worst_distance_error, tolerance.distance_error),
    ):
        worst = _stated(error, f"worst_{name}")
        if worst > allowed:
            misses.append(
                f"{where}: {name.replace('_', ' ')} {worst:.3g}, at most {allowed} is allowed"
            )
    neighbours = _stated(numbers.neighbours, "neighbours")
    if neighbours < tolerance.neighbours:
        misses.append(
            f"{where}: {neighbours:.0%} of the nearest photos stay the nearest, at "
            f"least {tolerance.neighbours:.0%} is needed"
        )
    if lost := _stated(numbers.lost_rows, "lost_rows"):
        misses.append(f"{where}: {lost} rows are nearest to another photo's")
    return misses


def _stated(value: Number | None, name: str) -> Number:
    if value is None:
        raise KeyError(name)
    return value


def _distances(rows: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns L2 distances, ``(len(rows), len(others))``, without a difference per pair."""
    squares = (rows**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * rows @ others.T
    distances: npt.NDArray[Any] = np.sqrt(np.maximum(squares, 0))
    return distances
