"""Verifies an engine by comparing its features with PyTorch's, row by row, through Polygraphy.

The engine runs in the same session as for users. Rows are independent in ``eval()``, so tiling and
permuting the golden photos covers any batch size without running PyTorch again.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.comparator import BaseCompareFunc, Comparator, IterationResult, RunResults
from polygraphy.logger import G_LOGGER

from builders.jobs.messages import Verification, VerificationSpec
from builders.jobs.progress import Event, Report
from builders.photos.edge import edge_batch
from builders.verify.edges import compare_edges, edge_features
from builders.verify.metrics import compare_rows
from builders.verify.misses import find_misses
from zoo.inference.preprocess import normalise
from zoo.runtime import Session
from zoo.runtime.base import DeviceTimed
from zoo.schema.floors import Tolerance
from zoo.schema.manifest import Preprocess
from zoo.schema.measurements import BatchNumbers
from zoo.util.errors import VerificationError

EDGES = "edge_features"
"""Array of a golden file with PyTorch's features of the edge pictures; old files have none."""

_INPUT, _OUTPUT = "images", "features"
Feed = dict[str, npt.NDArray[np.float32]]
"""A batch, by name of the input."""

_AT_ONCE = 32  # labelled photos


class SessionRunner(BaseRunner):  # type: ignore[misc]
    """Adapts a session to Polygraphy's runner interface.

    Args:
        session: An open session; it is not closed.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(name="engine")
        self._session = session

    def get_input_metadata_impl(self) -> Any:
        """Returns name, type and shape of the engine's input."""
        shape = (-1, *self._session.input_shape)
        return TensorMetadata().add(_INPUT, dtype=np.dtype(np.float32), shape=shape)

    def infer_impl(self, feed_dict: Feed) -> OrderedDict[str, Any]:
        """Runs one batch."""
        started = time.perf_counter()
        features = self._session.features(feed_dict[_INPUT])
        self.inference_time = time.perf_counter() - started
        return OrderedDict({_OUTPUT: features})


class RowResult:
    """Result of one batch; truthy when every row meets the tolerance.

    Args:
        numbers: Result of :func:`compare_rows`.
        misses: The limits that were missed, in words.
    """

    def __init__(self, numbers: BatchNumbers, misses: list[str]) -> None:
        self.numbers = numbers
        self.misses = misses

    def __bool__(self) -> bool:
        return not self.misses


class RowCompare(BaseCompareFunc):  # type: ignore[misc]
    """Compares features row by row; Polygraphy's own functions treat a batch as one vector.

    Args:
        golden: PyTorch's features of the golden photos, ``(N, feature_dim)``.
        tolerance: The tolerance that each row must meet.
    """

    def __init__(self, golden: npt.NDArray[np.float32], tolerance: Tolerance) -> None:
        self._golden = golden
        self._tolerance = tolerance

    def __call__(
        self, iter_result0: IterationResult, iter_result1: IterationResult
    ) -> OrderedDict[str, RowResult]:
        """Compares PyTorch's batch with the engine's."""
        features, expected = iter_result1[_OUTPUT], iter_result0[_OUTPUT]
        numbers = compare_rows(np.asarray(features), np.asarray(expected), self._golden)
        return OrderedDict({_OUTPUT: RowResult(numbers, find_misses(numbers, self._tolerance))})


def verify(
    session: Session,
    golden: Path,
    preprocess: Preprocess,
    tolerance: Tolerance,
    batches: tuple[int, ...],
    report: Report,
    edges_at: int | None = None,
) -> Verification:
    """Verifies an engine against PyTorch's golden features.

    Args:
        session: The engine, open.
        golden: The golden file.
        preprocess: The model's preprocessing.
        tolerance: The tolerance that each row must meet.
        batches: Batch sizes to run.
        report: Where progress goes.
        edges_at: Batch size of the edge pictures; None for each that the photos have on a GPU,
            where every profile has kernels of its own, and for the smallest of them on a CPU.

    Returns:
        Whether it passed, with the numbers of each batch.

    Raises:
        VerificationError: The golden file is damaged.
    """
    G_LOGGER.severity = G_LOGGER.ERROR
    try:
        with np.load(golden) as arrays:
            images, features = arrays["images"], arrays["features"]
            edges = arrays.get(EDGES)
    except (OSError, ValueError, KeyError) as error:
        raise VerificationError(f"{golden}: not a golden file: {error}") from error
    order = {batch: _rows(batch, len(features)) for batch in batches}

    def feeds() -> Iterator[Feed]:
        for done, batch in enumerate(batches):
            report(Event(stage="verify", done=done, total=len(batches), note=f"batch {batch}"))
            yield {_INPUT: normalise(images[order[batch]], preprocess)}

    with _without_torch():
        results = Comparator.run([SessionRunner(session)], data_loader=feeds())
        expected = [
            IterationResult(outputs={_OUTPUT: features[order[batch]]}, runner_name="pytorch")
            for batch in batches
        ]
        pair = RunResults([("pytorch", expected), *results.items()])
        compared = Comparator.compare_accuracy(pair, compare_func=RowCompare(features, tolerance))
    (rows,) = compared[0].values()  # one comparison, one pair of runners
    of_edges = batches if isinstance(session, DeviceTimed) else (min(batches),)
    outcomes = [
        _with_edges(
            row[_OUTPUT], session, edges_at or batch, preprocess, edges, features, tolerance
        )
        if batch in of_edges
        else row[_OUTPUT]
        for row, batch in zip(rows, batches, strict=False)
    ]
    report(Event(stage="verify", done=len(batches), total=len(batches)))
    misses = [miss for outcome in outcomes for miss in outcome.misses]
    return Verification(
        passed=not misses and len(outcomes) == len(batches),
        reason="; ".join(misses) or None,
        batches=tuple(outcome.numbers for outcome in outcomes),
    )


@contextmanager
def _without_torch() -> Iterator[None]:
    """Makes Polygraphy take torch for not installed, unless it is loaded already.

    To tell arrays from tensors, Polygraphy imports torch wherever that is installed, which takes
    seconds and memory that no verification needs.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # an import raises ImportError
    try:
        yield
    finally:
        del sys.modules["torch"]


def _with_edges(
    outcome: RowResult,
    session: Session,
    batch: int,
    preprocess: Preprocess,
    expected: npt.NDArray[np.float32] | None,
    golden: npt.NDArray[np.float32],
    tolerance: Tolerance,
) -> RowResult:
    """Adds the numbers of the edge pictures at a batch size to a result that has others."""
    if outcome.numbers.worst_cosine is None:  # of another shape, or not finite on photos even
        return outcome
    rows = edge_features(session.features, edge_batch(preprocess, session.input_shape[1:]), batch)
    numbers = outcome.numbers.but(edges=compare_edges(rows, expected, golden))
    return RowResult(numbers, find_misses(numbers, tolerance))


def labelled_features(session: Session, spec: VerificationSpec, path: Path, report: Report) -> None:
    """Writes an engine's features of labelled photos, ``(N, feature_dim)``.

    Args:
        session: The engine, open.
        spec: Names the file of the photos.
        path: Where to write them.
        report: Where progress goes.

    Raises:
        VerificationError: The file of photos is missing or malformed.
    """
    assert spec.labelled is not None
    try:
        with np.load(spec.labelled) as arrays:
            images = arrays["images"]
    except (OSError, ValueError, KeyError) as error:
        raise VerificationError(
            f"{spec.labelled}: no labelled photos: {error}",
            hint="the file exists only during a run; start one with make zoo LABELLED=folder",
        ) from error
    features = []
    for first in range(0, len(images), _AT_ONCE):
        report(Event(stage="verify", done=first, total=len(images), note="labelled photos"))
        batch = normalise(images[first : first + _AT_ONCE], spec.preprocess)
        features.append(session.features(batch))
    np.save(path, np.concatenate(features))


def _rows(batch: int, count: int) -> npt.NDArray[np.int64]:
    """Returns the golden photo for each row of a batch: all photos, tiled and permuted."""
    return np.random.default_rng(batch).permutation(batch) % count
