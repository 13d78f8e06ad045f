"""Python's collector of cycles, in processes that make many objects."""

from __future__ import annotations

import gc

_OBJECTS = 100_000


def collect_seldom() -> None:
    """Has the collector look for cycles seldom, and never among what has been imported.

    A process of a feature pass makes dozens of objects for a photo, and no cycles but those of an
    error: to look for them every 700 objects takes a sixth of its Python.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS)
