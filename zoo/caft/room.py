"""Memory for the pixels of large photos, shared by all that are decoded at once.

A file says little about the memory that its photo takes: 544 kB of PNG can hold 179 million pixels.
Ordinary photos are decoded freely; larger ones wait until those before them leave room.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from zoo.caft.memory import available_memory, give_back

LARGE = 256 << 20
"""Bytes above which a photo waits for room."""

_SHARE = 4
"""Part of the available memory that large photos may take together; other processes need some."""

_OTHERWISE = 4 << 30  # where the system does not tell


class Room:
    """Memory that several threads share; a photo that needs more than all of it is decoded alone.

    Args:
        size: Bytes; by default a quarter of what is available now.
    """

    def __init__(self, size: int | None = None) -> None:
        if size is None:
            available = available_memory()
            size = _OTHERWISE if available is None else available // _SHARE
        self._size = self._free = max(1, size)
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Holds memory of this size, in bytes, once there is enough; none for ordinary photos.

        What took it must be freed within the context.
        """
        if size < LARGE:
            yield
            return
        size = min(size, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            give_back()
            with self._changed:
                self._free += size
                self._changed.notify_all()
