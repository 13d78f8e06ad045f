"""Benchmarks an engine's latency and throughput within a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from builders.jobs.progress import Event, Report
from builders.verify.spread import LEAST_RUNS, ForeignLoad, Spread, spread, why_too_noisy
from zoo.runtime import Session
from zoo.runtime.base import DeviceTimed
from zoo.runtime.profiles import choose_profile
from zoo.schema.measurements import BatchTimes

_MOST_RUNS = 100
SECONDS = 0.4
"""Time per batch size on a CPU, plus the call in progress."""

_GPU_SECONDS = 1.0  # per batch size and profile

_MOST_SECONDS = 10.0  # of a batch size whose calls are slow, to reach the fewest runs that count
_TRIAL_RUNS = 5  # on a GPU, to estimate how many fit into the time


def benchmark(
    session: Session,
    batches: tuple[int, ...],
    report: Report,
    clock: Callable[[], float] = time.perf_counter,
    load_of: Callable[[Callable[[], float]], ForeignLoad] = ForeignLoad,
    *,
    keep_noise: bool = False,
    seconds: float = SECONDS,
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
        load_of: Starts measuring what other processes use.
        keep_noise: Whether to state times of a busy machine, with their load and interval.
        seconds: Time per batch size on a CPU, plus the call in progress.

    Returns:
        Per batch: ``batch``, ``runs``, ``latency_ms`` (median), ``latency_ms_min`` and
        ``images_per_second`` (of the median). On a GPU also ``measured``, ``call_ms`` (numpy to
        numpy), ``enqueued_ms`` (without the graph) and ``profiles``: index to latency in each
        optimisation profile that supports the batch; ``profile`` is the one that was chosen.
        Of a batch size that was too noisy to time, ``not_measured`` instead of the times: why.
    """
    rows = []
    called: BatchTimes | None = None
    for done, batch in enumerate(batches):
        report(Event(stage="benchmark", done=done, total=len(batches), note=f"batch {batch}"))
        is_tried = keep_noise or isinstance(session, DeviceTimed)
        if not is_tried and (least := _least_seconds(called, batch)) > _MOST_SECONDS:
            reason = f"{LEAST_RUNS} runs would take {least:.0f} s or more"
            rows.append(BatchTimes(batch=batch, not_measured=reason))
            continue
        load = load_of(clock)
        called = time_calls(session, batch, clock, seconds)
        if isinstance(session, DeviceTimed):
            # Other processes on the CPU do not slow down a replayed graph: only its spread counts.
            row, share = time_on_device(session, batch, called), None
        else:
            row, share = called, load.share()
        rows.append(_checked(row, share, keep_noise=keep_noise))
    report(Event(stage="benchmark", done=len(batches), total=len(batches)))
    return tuple(rows)


def time_calls(
    session: Session, batch: int, clock: Callable[[], float], seconds: float = SECONDS
) -> BatchTimes:
    """Times one batch size from numpy to numpy, until the time is up."""
    shape = (batch, *session.input_shape)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    times: list[float] = []
    start = clock()
    while _goes_on(times, clock() - start, seconds):
        before = clock()
        session.features(images)
        times.append(1e3 * (clock() - before))
    return summary(batch, times)


def _goes_on(times: list[float], spent: float, seconds: float) -> bool:
    """Whether to time another call."""
    runs = len(times)
    if runs < LEAST_RUNS:  # fewer count for nothing; the first may be slower than the rest
        fits = runs < 2 or LEAST_RUNS * min(times) / 1e3 <= _MOST_SECONDS
        return runs == 0 or (fits and spent < _MOST_SECONDS)
    return runs < _MOST_RUNS and spent < seconds


def _least_seconds(before: BatchTimes | None, batch: int) -> float:
    """Returns the least seconds that six runs can take, seen from a smaller batch size.

    An image of a larger batch may take half the time, but not less.
    """
    if before is None or before.batch is None or before.latency_ms_min is None:
        return 0
    return LEAST_RUNS * before.latency_ms_min / 1e3 * max(1, batch / before.batch / 2)


def _checked(row: BatchTimes, load: float | None, *, keep_noise: bool) -> BatchTimes:
    """Returns a row with the load it was taken under, without times if that was too noisy."""
    if load is not None:
        row = row.but(load=round(load, 3))
    if row.interval_ms is None:
        reason = why_too_noisy(Spread(runs=row.runs or 0, median=0, mad=0, interval=None), load)
    else:
        assert row.latency_ms is not None
        times = Spread(
            runs=row.runs or 0,
            median=row.latency_ms,
            mad=row.mad_ms or 0,
            interval=row.interval_ms,
        )
        reason = why_too_noisy(times, load)
    if reason is None or keep_noise:
        return row
    stated = {"batch": row.batch, "runs": row.runs, "load": row.load, "mad_ms": row.mad_ms}
    known = {name: value for name, value in stated.items() if value is not None}
    return BatchTimes.model_validate({**known, "not_measured": reason})


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
    of_times = spread(times)
    row = BatchTimes(
        batch=batch,
        runs=len(times),
        latency_ms=of_times.median,
        latency_ms_min=min(times),
        mad_ms=of_times.mad,
        images_per_second=1e3 * batch / of_times.median,
    )
    return row.but(interval_ms=of_times.interval) if of_times.interval else row


def _times(session: DeviceTimed, batch: int, profile: int, *, cuda_graph: bool) -> list[float]:
    """Returns milliseconds of as many runs as fit into the time."""
    trial = session.time_on_device(batch, profile, _TRIAL_RUNS, cuda_graph=cuda_graph)
    fitting = int(1e3 * _GPU_SECONDS / max(1e-3, float(np.median(trial))))
    runs = max(LEAST_RUNS, min(_MOST_RUNS, fitting))
    return session.time_on_device(batch, profile, runs, cuda_graph=cuda_graph)
