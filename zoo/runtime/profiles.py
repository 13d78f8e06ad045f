"""Which optimisation profile runs a batch, and how what is larger is split. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.schema.manifest import BatchRange


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Consecutive rows of a batch that run at once.

    Attributes:
        profile: Index of the profile.
        start: First row.
        rows: How many rows.
        batch: Images that the engine is given: ``rows``, or more where the profile takes no fewer.
    """

    profile: int
    start: int
    rows: int
    batch: int


def choose_profile(profiles: Sequence[BatchRange], batch: int) -> int:
    """Picks the profile that runs a batch best.

    Of those that take the batch, the one tuned nearest to it (by ratio) wins. Where none does, it
    is the one that needs the least padding.

    Args:
        profiles: Of an engine; the largest takes ``batch`` or more.
        batch: Images at once.
    """
    fitting = [index for index, one in enumerate(profiles) if batch in one]
    if fitting:
        return min(fitting, key=lambda index: _ratio(profiles[index].opt, batch))
    wider = [index for index, one in enumerate(profiles) if one.min > batch]
    return min(wider, key=lambda index: profiles[index].min)


def pieces(profiles: Sequence[BatchRange], rows: int) -> list[Piece]:
    """Splits a batch into what the profiles take: full ones of the largest, then the rest."""
    largest = max(one.max for one in profiles)
    found = []
    for start in range(0, rows, largest):
        count = min(largest, rows - start)
        profile = choose_profile(profiles, count)
        batch = max(count, profiles[profile].min)
        found.append(Piece(profile=profile, start=start, rows=count, batch=batch))
    return found


def _ratio(one: int, other: int) -> float:
    return max(one, other) / min(one, other)
