"""Times an engine and a reference in turns, and states how many times as fast the engine is.

Latencies are only comparable within one run on one machine: whatever slows the machine down slows
both. The ratio of each round is therefore the measurement, and its interval says whether it is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from builders.verify.spread import LEAST_RUNS, ForeignLoad, Spread, spread, why_too_noisy
from zoo.schema.measurements import ComparedBody, ComparedTimes, Unmeasured

SECONDS = 1.5
"""Per batch size, both together."""

MOST_SECONDS = 20.0  # of a batch size whose runs are slow, to reach the fewest rounds that count
_REST = 0.03  # seconds between runs: thread pools keep spinning for a while after their work


@dataclass(frozen=True, kw_only=True)
class Row:
    """Latencies of an engine and of PyTorch at one batch size.

    Attributes:
        batch: Images per batch.
        engine_ms: Median latency of the engine, milliseconds.
        eager_ms: Median latency of eager PyTorch, milliseconds.
        ratios: PyTorch's latency divided by the engine's in each round.
        load: Share of the cores that other processes used; None if it is not known.
        untimed: Why it was not timed at all, and states no latencies; None if it was.
    """

    batch: int
    engine_ms: float
    eager_ms: float
    ratios: tuple[float, ...] = ()
    load: float | None = None
    untimed: str | None = None

    @property
    def of_ratio(self) -> Spread:
        """PyTorch's latency divided by the engine's, round by round: what slows one slows both."""
        return spread(self.ratios or (self.eager_ms / self.engine_ms,))

    @property
    def noisy(self) -> str | None:
        """Why the ratio is no fact about the engine; None if it is one."""
        return self.untimed or why_too_noisy(self.of_ratio, self.load)


def row_of(
    batch: int,
    engine: Callable[[], Any],
    reference: Callable[[], Any],
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[float], None] = time.sleep,
    load_of: Callable[[Callable[[], float]], ForeignLoad] = ForeignLoad,
    *,
    seconds: float = SECONDS,
    most_seconds: float = MOST_SECONDS,
) -> Row:
    """Times one batch size.

    Args:
        batch: Images per batch.
        engine: Runs the engine once.
        reference: Runs PyTorch once.
        clock: Returns the time in seconds.
        rest: Waits for some seconds.
        load_of: Starts measuring what other processes use.
        seconds: After these no further round begins, if enough were timed.
        most_seconds: No further round begins once six are seen to take longer.
    """
    load = load_of(clock)
    first, second = in_turns(engine, reference, clock, rest, (seconds, most_seconds))
    return Row(
        batch=batch,
        engine_ms=float(np.median(first)),
        eager_ms=float(np.median(second)),
        ratios=tuple(b / max(a, 1e-9) for a, b in zip(first, second, strict=True)),
        load=load.share(),
    )


def untimed(batch: int, engine_ms: float, before: Row, most_seconds: float) -> Row | None:
    """Returns the row of a batch size at which six rounds would clearly take too long.

    PyTorch's latency is taken to have grown as much as the engine's since a smaller batch size.
    Twice the time is clearly too long: what is nearer is tried.

    Args:
        batch: Images per batch.
        engine_ms: Latency of the engine alone, milliseconds.
        before: The row of a smaller batch size, which was timed.
        most_seconds: Seconds that six rounds may take.

    Returns:
        It; None if it is to be timed.
    """
    seconds = LEAST_RUNS * engine_ms * (1 + before.eager_ms / before.engine_ms) / 1e3
    if seconds <= 2 * most_seconds:
        return None
    return Row(
        batch=batch,
        engine_ms=engine_ms,
        eager_ms=0,
        untimed=f"{LEAST_RUNS} runs would take {seconds:.0f} s, {most_seconds:.0f} s at most",
    )


def in_turns(
    first: Callable[[], Any],
    second: Callable[[], Any],
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[float], None] = time.sleep,
    limits: tuple[float, float] = (SECONDS, MOST_SECONDS),
) -> tuple[list[float], list[float]]:
    """Times two functions alternately, so that whatever slows the machine down slows both.

    Who begins changes from round to round: on a machine that slows down steadily, the second of a
    round would always seem slower than it is.

    How many rounds there are depends on how long they take, never on their ratios: intervals of
    rounds that ended as soon as they agreed would be too narrow.

    Args:
        first: The one.
        second: The other.
        clock: Returns the time in seconds.
        rest: Waits for some seconds.
        limits: Seconds after which no further round begins; and most seconds for six rounds.

    Returns:
        The duration of each in each round, milliseconds: six rounds or more, or fewer if six would
        take too long.
    """
    first(), second()  # warm up
    durations: tuple[list[float], list[float]] = ([], [])
    start = clock()
    while _goes_on(len(durations[0]), clock() - start, *limits):
        turns = list(zip((first, second), durations, strict=True))
        for run, times in reversed(turns) if len(durations[0]) % 2 else turns:
            rest(_REST)
            before = clock()
            run()
            times.append(1e3 * (clock() - before))
    return durations


def _goes_on(rounds: int, spent: float, seconds: float, most_seconds: float) -> bool:
    if rounds < LEAST_RUNS:
        return rounds == 0 or spent / rounds * LEAST_RUNS <= most_seconds
    return spent < seconds


def compared(rows: Iterable[Row], pytorch: str, *, keep_noise: bool = False) -> ComparedBody:
    """Returns the rows of one engine as its record states them; those that are noise by reason.

    Args:
        rows: The rows.
        pytorch: How PyTorch ran, in words.
        keep_noise: Whether to state ratios of a busy machine, with their interval.
    """
    rows = list(rows)
    noisy = {row.batch: row.noisy for row in rows if row.noisy and (row.untimed or not keep_noise)}
    stated = tuple(_times(row) for row in rows if row.batch not in noisy)
    body = ComparedBody(batches=stated, pytorch=pytorch)
    if not noisy:
        return body
    return body.but(
        not_measured=tuple(Unmeasured(batch=batch, reason=why) for batch, why in noisy.items())
    )


def _times(row: Row) -> ComparedTimes:
    of_ratio = row.of_ratio
    times = ComparedTimes(
        batch=row.batch, engine_ms=row.engine_ms, pytorch_ms=row.eager_ms, ratio=of_ratio.median
    )
    return times.but(ratio_interval=of_ratio.interval) if of_ratio.interval else times
