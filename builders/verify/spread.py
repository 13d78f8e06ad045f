"""Says whether a time is a fact: spread, intervals of medians and of ratios, and foreign load.

Intervals are by order statistics (:func:`zoo.schema.intervals.median_interval`): six values are the
fewest whose least and largest enclose the median with 95%.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.schema.intervals import Interval, median_interval

LEAST_RUNS = 6
"""The fewest runs whose order statistics enclose the median with 95%."""

MOST_LOAD = 0.10
"""Largest share of the cores' time that other processes may use while a time is taken."""

MOST_SPREAD = 0.05
"""Largest half width of the median's interval, as a fraction of the median."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Times of the same work.

    Attributes:
        runs: How many.
        median: Their median.
        mad: Median absolute deviation from it.
        interval: Encloses the true median with 95%; None for fewer than six runs.
    """

    runs: int
    median: float
    mad: float
    interval: Interval | None


def spread(times: Sequence[float]) -> Spread:
    """Returns median, spread and interval of some times."""
    median = float(np.median(times))
    return Spread(
        runs=len(times),
        median=median,
        mad=float(np.median(np.abs(np.asarray(times) - median))),
        interval=median_interval(times),
    )


def why_too_noisy(times: Spread, load: float | None) -> str | None:
    """Returns why a median is no fact about an engine; None if it is one.

    Args:
        times: The times.
        load: Share of the cores' time that other processes used; None if it is not known.
    """
    if times.interval is None:
        return f"{times.runs} runs fitted into the time, {LEAST_RUNS} are needed"
    if load is not None and load > MOST_LOAD:
        return f"other processes used {load:.0%} of the cores, at most {MOST_LOAD:.0%} may be"
    half = (times.interval[1] - times.interval[0]) / 2 / max(times.median, 1e-30)
    if half > MOST_SPREAD:
        return f"the median is known to {half:.0%} only, {MOST_SPREAD:.0%} is needed"
    return None


class ForeignLoad:
    """Measures which share of this process's cores others use, from Linux's accounting.

    Args:
        busy: Returns the seconds that the cores were busy, stolen time included; None if unknown.
        own: Returns the seconds of them that this process used.
        wall: The clock.
        cores: How many cores the process may use.
    """

    def __init__(
        self,
        wall: Callable[[], float],
        busy: Callable[[], float | None] | None = None,
        own: Callable[[], float] | None = None,
        cores: int | None = None,
    ) -> None:
        self._busy, self._own, self._wall = busy or _busy_seconds, own or _own_seconds, wall
        self._cores = cores or len(_cores())
        self._start = self._busy(), self._own(), self._wall()

    def share(self) -> float | None:
        """Returns the share since this was made, from 0 to 1; None if it is not known."""
        busy, own, wall = self._busy(), self._own(), self._wall()
        before, own_before, wall_before = self._start
        elapsed = (wall - wall_before) * self._cores
        if busy is None or before is None or elapsed <= 0:
            return None
        return min(1.0, max(0.0, (busy - before - (own - own_before)) / elapsed))


def _cores() -> set[int]:
    affinity = getattr(os, "sched_getaffinity", None)
    return set(affinity(0)) if affinity else set(range(os.cpu_count() or 1))


def _busy_seconds() -> float | None:
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    wanted = {f"cpu{core}" for core in _cores()}
    ticks = 0
    for line in lines:
        name, *fields = line.split()
        if name in wanted:
            user, nice, system, _idle, _wait, irq, soft, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + soft + steal
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else None


def _own_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
