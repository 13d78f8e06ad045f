"""Chooses optimisation profiles and splits batches that exceed the largest. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.schema.manifest import BatchRange


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Consecutive rows of a batch that run together.

    Attributes:
        profile: Index of the profile.
        start: First row.
        rows: Number of rows.
        batch: Batch size of the run: ``rows``, or the profile's minimum if that is larger.
    """

    profile: int
    start: int
    rows: int
    batch: int


def choose_profile(profiles: Sequence[BatchRange], batch: int) -> int:
    """Returns the index of the best profile for a batch size.

    Of the profiles that support the size, the one tuned for the closest size (by ratio) is best.
    If there is none, it is the one that needs the least padding.

    Args:
        profiles: The engine's profiles; the largest supports at least ``batch``.
        batch: Batch size.
    """
    supporting = [index for index, profile in enumerate(profiles) if batch in profile]
    if supporting:
        return min(supporting, key=lambda index: _ratio(profiles[index].opt, batch))
    larger = [index for index, profile in enumerate(profiles) if profile.min > batch]
    return min(larger, key=lambda index: profiles[index].min)


def pieces(profiles: Sequence[BatchRange], rows: int) -> list[Piece]:
    """Splits a batch into pieces of the maximum batch size and one for the remainder."""
    largest = max(profile.max for profile in profiles)
    split = []
    for start in range(0, rows, largest):
        count = min(largest, rows - start)
        profile = choose_profile(profiles, count)
        batch = max(count, profiles[profile].min)
        split.append(Piece(profile=profile, start=start, rows=count, batch=batch))
    return split


def _ratio(first: int, second: int) -> float:
    return max(first, second) / min(first, second)
