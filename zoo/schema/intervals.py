"""Intervals of measurements, and what may be concluded from them."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

Interval = tuple[float, float]
"""Encloses the true value with 95%."""

_OUTSIDE = 0.05


def median_interval(values: Sequence[float]) -> Interval | None:
    """Returns the narrowest pair of order statistics that encloses the median with 95%.

    Of n sorted values, the k-th and the (n+1-k)-th enclose the median with a probability that only
    the binomial distribution decides, whatever the distribution of the values.

    Returns:
        The pair; None for fewer than six values, which enclose it with less.
    """
    ordered, count = sorted(values), len(values)
    outside, rank = 0.0, 0
    for below in range(count // 2):
        outside += 2 * comb(count, below) / 2**count
        if outside > _OUTSIDE:
            break
        rank = below + 1
    return (ordered[rank - 1], ordered[-rank]) if rank else None


def quotient(above: Interval, below: Interval) -> Interval:
    """Returns an interval of a quotient: it holds where both others do, with 90% or more."""
    tiny = 1e-30
    return above[0] / max(below[1], tiny), above[1] / max(below[0], tiny)


def times_as_fast(ratio: float, interval: Interval | None) -> str:
    """Returns a ratio in words; says so if its interval encloses 1, or if there is none."""
    words = f"{ratio:.2f} times as fast"
    if interval is None:
        return f"{words} (interval not known)"
    low, high = interval
    return f"{words} ({low:.2f} to {high:.2f}{', within noise' if low <= 1 <= high else ''})"
