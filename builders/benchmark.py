"""Benchmark: latency and throughput of an engine, bounded in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from builders.progress import Event, Report
from zoo.runtime import Session

_LEAST_RUNS = 2
_MOST_RUNS = 100
_SECONDS = 1.0  # per batch size, warm-up and the run in progress aside


def benchmark(
    session: Session,
    batches: tuple[int, ...],
    report: Report,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, Any], ...]:
    """Times an engine from numpy to numpy.

    Args:
        session: The engine, open.
        batches: Batch sizes to time.
        report: Where progress goes.
        clock: Seconds.

    Returns:
        Per batch: ``batch``, ``runs``, ``latency_ms`` (median), ``latency_ms_min`` and
        ``images_per_second`` (of the median).
    """
    rows = []
    for done, batch in enumerate(batches):
        report(Event(stage="benchmark", done=done, total=len(batches), note=f"batch {batch}"))
        rows.append({"batch": batch, **time_batch(session, batch, clock)})
    report(Event(stage="benchmark", done=len(batches), total=len(batches)))
    return tuple(rows)


def time_batch(session: Session, batch: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Times one batch size: one warm-up, then runs until the time is up."""
    shape = (batch, *session.input_shape)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    session.features(images)
    times: list[float] = []
    start = clock()
    while len(times) < _LEAST_RUNS or (len(times) < _MOST_RUNS and clock() - start < _SECONDS):
        before = clock()
        session.features(images)
        times.append(clock() - before)
    median = float(np.median(times))
    return {
        "runs": len(times),
        "latency_ms": 1e3 * median,
        "latency_ms_min": 1e3 * min(times),
        "images_per_second": batch / median,
    }
