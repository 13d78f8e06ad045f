"""Intervals of measurements, and what may be concluded from them."""

from __future__ import annotations

Interval = tuple[float, float]
"""Encloses the true value with 95%."""


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
