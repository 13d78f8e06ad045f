"""Benchmarks an engine's latency and throughput within a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from builders.jobs.progress import Event, Report
from zoo.runtime import Session
from zoo.runtime.base import DeviceTimed
from zoo.runtime.profiles import choose_profile
from zoo.schema.measurements import BatchTimes

_LEAST_RUNS = 2
_MOST_RUNS = 100
_SECONDS = 1.0  # per batch size, plus the call in progress
_TRIAL_RUNS = 5  # on a GPU, to estimate how many fit into the time


def benchmark(
    session: Session,
    batches: tuple[int, ...],
    report: Report,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[BatchTimes, ...]:
    """Times an engine.

    On a CPU, times a call from numpy to numpy. On a GPU, times the engine alone, by CUDA events
    around a replayed CUDA graph with its data already on the GPU; the time of a call including
    copies is reported separately.

    Args:
        session: The engine, open and run once at each batch size.
        batches: Batch sizes to time.
        report: Where progress goes.
        clock: Returns the time in seconds.

    Returns:
        Per batch: ``batch``, ``runs``, ``latency_ms`` (median), ``latency_ms_min`` and
        ``images_per_second`` (of the median). On a GPU also ``measured``, ``call_ms`` (numpy to
        numpy), ``enqueued_ms`` (without the graph) and ``profiles``: index to latency in each
        optimisation profile that supports the batch; ``profile`` is the one that was chosen.
    """
    rows = []
    for done, batch in enumerate(batches):
        report(Event(stage="benchmark", done=done, total=len(batches), note=f"batch {batch}"))
        called = time_calls(session, batch, clock)
        row = time_on_device(session, batch, called) if isinstance(session, DeviceTimed) else called
        rows.append(row)
    report(Event(stage="benchmark", done=len(batches), total=len(batches)))
    return tuple(rows)


def time_calls(session: Session, batch: int, clock: Callable[[], float]) -> BatchTimes:
    """Times one batch size from numpy to numpy, until the time is up."""
    shape = (batch, *session.input_shape)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    times: list[float] = []
    start = clock()
    while len(times) < _LEAST_RUNS or (len(times) < _MOST_RUNS and clock() - start < _SECONDS):
        before = clock()
        session.features(images)
        times.append(1e3 * (clock() - before))
    return summary(batch, times)


def time_on_device(session: DeviceTimed, batch: int, called: BatchTimes) -> BatchTimes:
    """Times one batch size on the GPU, in every profile that supports it.

    Args:
        session: The engine.
        batch: The batch size.
        called: Result of :func:`time_calls`.
    """
    chosen = choose_profile(session.profiles, batch)
    supporting = [index for index, profile in enumerate(session.profiles) if batch in profile]
    times = {index: _times(session, batch, index, cuda_graph=True) for index in supporting}
    enqueued = _times(session, batch, chosen, cuda_graph=False)
    return summary(batch, times[chosen]).but(
        measured="on the GPU, CUDA graph",
        call_ms=called.latency_ms,
        enqueued_ms=float(np.median(enqueued)),
        profile=chosen,
        profiles={str(index): float(np.median(runs)) for index, runs in times.items()},
    )


def summary(batch: int, times: list[float]) -> BatchTimes:
    """Summarises runs.

    Args:
        batch: The batch size.
        times: Milliseconds of each run.
    """
    median = float(np.median(times))
    return BatchTimes(
        batch=batch,
        runs=len(times),
        latency_ms=median,
        latency_ms_min=min(times),
        images_per_second=1e3 * batch / median,
    )


def _times(session: DeviceTimed, batch: int, profile: int, *, cuda_graph: bool) -> list[float]:
    """Returns milliseconds of as many runs as fit into the time."""
    trial = session.time_on_device(batch, profile, _TRIAL_RUNS, cuda_graph=cuda_graph)
    fitting = int(1e3 * _SECONDS / max(1e-3, float(np.median(trial))))
    runs = max(_LEAST_RUNS, min(_MOST_RUNS, fitting))
    return session.time_on_device(batch, profile, runs, cuda_graph=cuda_graph)
