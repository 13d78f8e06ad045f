"""Attempts at photos after faults of the machine: with fewer at once, and at last alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from zoo.util.faults import is_doubtful, persistently

R = TypeVar("R")


class Attempts:
    """Runs the decoding of photos in several threads.

    A photo that fails through the machine is tried again while no other is decoded, and from then
    on half as many as before are decoded at once: memory and open files are shared by all.

    Args:
        most: Photos that may be decoded at once.

    Attributes:
        most: Those that still may.
        faults: Faults after which a photo was tried again.
    """

    def __init__(self, most: int) -> None:
        self.most = max(1, most)
        self.faults = 0
        self._changed = threading.Condition()
        self._running = 0
        self._alone = 0  # threads that run alone, or wait for it

    def run(self, work: Callable[[], R], name: str) -> R:
        """Decodes a photo.

        Args:
            work: What decodes it.
            name: Its name.

        Raises:
            MachineError: The machine can't decode it alone either.
        """
        try:
            with self._beside_others():
                return work()
        except Exception as error:  # whatever the image makes its decoder raise
            if not is_doubtful(error):
                raise
        with self._by_itself():
            return persistently(work, name)

    @contextmanager
    def _beside_others(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and self._running < self.most)
            self._running += 1
        try:
            yield
        finally:
            self._end()

    @contextmanager
    def _by_itself(self) -> Iterator[None]:
        with self._changed:
            self.faults += 1
            self.most = max(1, self.most // 2)
            self._alone += 1
            self._changed.wait_for(lambda: not self._running)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._alone -= 1
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()
