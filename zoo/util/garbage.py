"""Python's collector of cycles, in processes that make many objects."""

from __future__ import annotations

import gc

_THRESHOLDS = 50_000, 20, 100  # objects between two collections, and those between larger ones


def collect_seldom() -> None:
    """Has this process look for cycles seldom, and never among what it has by now.

    A feature pass makes dozens of objects for a photo, and a network's graph is some hundred
    thousand that all are in use. Neither makes cycles but in errors, and to look for them again and
    again takes a sixth of the Python of a pass.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
