"""Keeps the farm's other work away from a process that measures an engine's speed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Quiet:
    """Lets threads either work beside each other or be alone; safe to use from several threads.

    A thread that waits to be alone goes before those that would begin to work, so that engines are
    measured one after another while nothing else has begun.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._here = threading.local()
        self._working = 0
        self._waiting = 0
        self._alone = False

    @contextmanager
    def working(self) -> Iterator[None]:
        """Works beside others; waits while one is alone or waits to be."""
        if getattr(self._here, "works", False):  # this thread already does
            yield
            return
        self._begin()
        try:
            yield
        finally:
            self._end()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until nobody works, and is alone. A thread that works stops working meanwhile."""
        worked = getattr(self._here, "works", False)
        if worked:
            self._end()
        try:
            with self._changed:
                self._waiting += 1
                try:
                    self._changed.wait_for(lambda: not self._working and not self._alone)
                    self._alone = True
                finally:
                    self._waiting -= 1
                    self._changed.notify_all()
            try:
                yield
            finally:
                with self._changed:
                    self._alone = False
                    self._changed.notify_all()
        finally:
            if worked:
                self._begin()

    def _begin(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._working += 1
        self._here.works = True

    def _end(self) -> None:
        self._here.works = False
        with self._changed:
            self._working -= 1
            self._changed.notify_all()
