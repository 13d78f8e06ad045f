"""Verify: an engine's features against PyTorch's, row by row, through Polygraphy.

What runs is the session that users run. Rows are independent in ``eval()``, so the golden photos,
tiled and permuted, cover any batch without asking PyTorch again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.comparator import BaseCompareFunc, Comparator, IterationResult, RunResults
from polygraphy.logger import G_LOGGER

from builders.job import Verification
from builders.progress import Event, Report
from zoo.errors import VerificationError
from zoo.manifest import Preprocess, Tolerance
from zoo.preprocess import normalise
from zoo.runtime import Session

_INPUT, _OUTPUT = "images", "features"


class SessionRunner(BaseRunner):  # type: ignore[misc]
    """Lets Polygraphy run one of our sessions.

    Args:
        session: An open session; stays open afterwards.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(name="engine")
        self._session = session

    def get_input_metadata_impl(self) -> Any:
        """Says what the engine takes."""
        shape = (-1, *self._session.input_shape)
        return TensorMetadata().add(_INPUT, dtype=np.dtype(np.float32), shape=shape)

    def infer_impl(self, feed_dict: dict[str, Any]) -> OrderedDict[str, Any]:
        """Runs one batch."""
        started = time.perf_counter()
        features = self._session.features(feed_dict[_INPUT])
        self.inference_time = time.perf_counter() - started
        return OrderedDict({_OUTPUT: features})


class RowResult:
    """Numbers of one batch; truthy when every row keeps its tolerance.

    Args:
        numbers: As :func:`compare_rows` gives them.
        misses: What is wrong, in words.
    """

    def __init__(self, numbers: dict[str, Any], misses: list[str]) -> None:
        self.numbers = numbers
        self.misses = misses

    def __bool__(self) -> bool:
        return not self.misses


class RowCompare(BaseCompareFunc):  # type: ignore[misc]
    """Compares features row by row. Polygraphy's own functors judge a batch as one vector.

    Args:
        golden: PyTorch's features of the golden photos, ``(N, feature_dim)``.
        tolerance: What each row must keep.
    """

    def __init__(self, golden: npt.NDArray[np.float32], tolerance: Tolerance) -> None:
        self._golden = golden
        self._tolerance = tolerance

    def __call__(
        self, iter_result0: IterationResult, iter_result1: IterationResult
    ) -> OrderedDict[str, RowResult]:
        """Compares PyTorch's batch with the engine's."""
        found, expected = iter_result1[_OUTPUT], iter_result0[_OUTPUT]
        numbers = compare_rows(np.asarray(found), np.asarray(expected), self._golden)
        return OrderedDict({_OUTPUT: RowResult(numbers, find_misses(numbers, self._tolerance))})


def compare_rows(
    found: npt.NDArray[Any], expected: npt.NDArray[Any], golden: npt.NDArray[Any]
) -> dict[str, Any]:
    """Measures how far features are from PyTorch's.

    Args:
        found: The engine's, ``(B, feature_dim)``.
        expected: PyTorch's of the same photos, ``(B, feature_dim)``.
        golden: PyTorch's of all golden photos, ``(N, feature_dim)``; ``expected`` is rows of it.

    Returns:
        ``batch``; ``finite``; and over its rows: ``worst_cosine``, ``median_cosine``,
        ``worst_relative_error`` (``|y - r| / |r|``), ``worst_distance_error`` (``|y - r|`` over
        the distance from ``r`` to the nearest other photo), ``worst_row``, and ``lost_rows``:
        how many are nearer to another photo's features than to their own.
    """
    batch: dict[str, Any] = {"batch": len(expected)}
    if found.shape != expected.shape:
        return {**batch, "finite": False, "shape": list(found.shape)}
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found).all(axis=1)).sum())
        return {**batch, "finite": False, "rows_not_finite": bad}
    y, r, all_rows = (array.astype(np.float64) for array in (found, expected, golden))
    error = np.linalg.norm(y - r, axis=1)
    lengths = np.linalg.norm(y, axis=1) * np.linalg.norm(r, axis=1)
    cosine = (y * r).sum(axis=1) / np.maximum(lengths, 1e-30)
    between = _distances(r, all_rows)
    scale = np.linalg.norm(all_rows, axis=1).max()
    other = np.where(between > 1e-6 * scale, between, np.inf).min(axis=1)
    nearest = _distances(y, all_rows).argmin(axis=1)
    lost = between[np.arange(len(r)), nearest] > 1e-6 * scale
    return {
        **batch,
        "finite": True,
        "worst_cosine": float(cosine.min()),
        "median_cosine": float(np.median(cosine)),
        "worst_relative_error": float((error / np.linalg.norm(r, axis=1)).max()),
        "worst_distance_error": float((error / other).max()),
        "worst_row": int(cosine.argmin()),
        "lost_rows": int(lost.sum()),
    }


def find_misses(numbers: dict[str, Any], tolerance: Tolerance) -> list[str]:
    """Says in words which floors a batch misses; an empty list when it keeps them all."""
    where = f"batch {numbers['batch']}"
    if not numbers["finite"]:
        if "shape" in numbers:
            return [f"{where}: features of shape {tuple(numbers['shape'])}"]
        return [f"{where}: {numbers['rows_not_finite']} rows hold NaN or infinity"]
    misses = []
    if numbers["worst_cosine"] < tolerance.cosine:
        misses.append(
            f"{where}: row {numbers['worst_row']} has cosine {numbers['worst_cosine']:.6f}, "
            f"at least {tolerance.cosine} is needed"
        )
    for name in ("relative_error", "distance_error"):
        allowed = getattr(tolerance, name)
        if numbers[f"worst_{name}"] > allowed:
            misses.append(
                f"{where}: {name.replace('_', ' ')} {numbers[f'worst_{name}']:.3g}, "
                f"at most {allowed} is allowed"
            )
    if numbers["lost_rows"]:
        misses.append(f"{where}: {numbers['lost_rows']} rows are nearest to another photo's")
    return misses


def verify(
    session: Session,
    golden: Path,
    preprocess: Preprocess,
    tolerance: Tolerance,
    batches: tuple[int, ...],
    report: Report,
) -> Verification:
    """Proves an engine against PyTorch's golden features.

    Args:
        session: The engine, open.
        golden: The golden file.
        preprocess: The model's preprocessing.
        tolerance: What each row must keep.
        batches: Batch sizes to run.
        report: Where progress goes.

    Returns:
        The verdict, with the numbers of each batch.

    Raises:
        VerificationError: The golden file is damaged.
    """
    G_LOGGER.severity = G_LOGGER.ERROR
    try:
        with np.load(golden) as arrays:
            images, features = arrays["images"], arrays["features"]
    except (OSError, ValueError, KeyError) as error:
        raise VerificationError(f"{golden}: not a golden file: {error}") from error
    order = {batch: _rows(batch, len(features)) for batch in batches}

    def feeds() -> Iterator[dict[str, Any]]:
        for done, batch in enumerate(batches):
            report(Event(stage="verify", done=done, total=len(batches), note=f"batch {batch}"))
            yield {_INPUT: normalise(images[order[batch]], preprocess)}

    results = Comparator.run([SessionRunner(session)], data_loader=feeds())
    expected = [
        IterationResult(outputs={_OUTPUT: features[order[batch]]}, runner_name="pytorch")
        for batch in batches
    ]
    pair = RunResults([("pytorch", expected), *results.items()])
    compared = Comparator.compare_accuracy(pair, compare_func=RowCompare(features, tolerance))
    (rows,) = compared[0].values()  # one comparison, one pair of runners
    outcomes = [row[_OUTPUT] for row in rows]
    report(Event(stage="verify", done=len(batches), total=len(batches)))
    misses = [miss for outcome in outcomes for miss in outcome.misses]
    return Verification(
        passed=not misses and len(outcomes) == len(batches),
        reason="; ".join(misses) or None,
        batches=tuple(outcome.numbers for outcome in outcomes),
    )


def _rows(batch: int, count: int) -> npt.NDArray[np.int64]:
    """Returns which golden photo goes where in a batch: all of them, tiled and permuted."""
    return np.random.default_rng(batch).permutation(batch) % count


def _distances(rows: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns L2 distances, ``(len(rows), len(others))``, without a difference per pair."""
    squares = (rows**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * rows @ others.T
    distances: npt.NDArray[Any] = np.sqrt(np.maximum(squares, 0))
    return distances
