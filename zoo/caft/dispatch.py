"""Gives the parts of a pass to the workers of a cluster."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from zoo.caft.crew import Crew
from zoo.caft.parts import MOST_SENT, Part
from zoo.caft.sending import Attempt, send
from zoo.caft.wire import Setup
from zoo.caft.worker_kinds import Worker
from zoo.caft.workers import Workforce

_SLOW = 30.0  # seconds after which a part may be given to a second worker that has nothing to do
_TIMES = 4  # and how often it must take as long as the longest part before
_MOST_TRIES = 3  # workers that have one part at the same time


class Dispatcher:
    """Decides which worker gets which part, and sends it.

    Args:
        workforce: The workers of the cluster.
        setup: What all parts have in common.
        crew: The workers of the pass.
        put: Called with each attempt once it has ended.

    Attributes:
        window: Parts that have not been yielded, in order.
    """

    def __init__(
        self, workforce: Workforce, setup: Setup, crew: Crew, put: Callable[[Attempt], None]
    ) -> None:
        self.window: list[Part] = []
        self._workforce, self._setup, self._crew, self._put = workforce, setup, crew, put
        self._longest = 0.0
        self._keys = count()
        self._id = uuid.uuid4().hex
        self._pool = ThreadPoolExecutor(4, "send")

    def assign(self) -> None:
        """Gives parts to workers that have too few, and slow ones to a second worker."""
        place = 0
        while place < len(self.window):
            part = self.window[place]
            place += 1
            if part.ended or part.running:
                continue
            worker = self._crew.free(part)
            if worker is None:
                return
            if self._splits(part, worker):
                place -= 1
                continue
            self._give(part, worker)
        self._repeat_slow()

    def note_duration(self, seconds: float) -> None:
        """Notes how long a worker took for a part."""
        self._longest = max(self._longest, seconds)

    def replace(self, part: Part, parts: list[Part]) -> None:
        """Replaces a part by smaller ones."""
        place = self.window.index(part)
        self.window[place : place + 1] = parts

    def stop(self) -> None:
        """Ends the threads that send parts."""
        self._pool.shutdown(cancel_futures=True)

    def _splits(self, part: Part, worker: Worker) -> bool:
        """Splits a part whose files must be sent, and are too many for one message."""
        sends = worker.shares_files is False or any(each.send for each in part.packed)
        if not sends or part.size <= MOST_SENT or len(part.packed) <= self._setup.samples:
            return False
        parts = part.split(self._setup.samples, MOST_SENT)
        if len(parts) > 1:
            self.replace(part, parts)
        return len(parts) > 1

    def _repeat_slow(self) -> None:
        """Gives the next part to a second worker if the first has had it for very long."""
        idle = self._crew.idle()
        part = next((part for part in self.window if not part.ended), None)
        if part is None or not part.running or idle is None or len(part.running) >= _MOST_TRIES:
            return
        limit = max(_SLOW, _TIMES * self._longest)
        if time.monotonic() - part.running[-1].begun > limit:
            self._give(part, idle)

    def _give(self, part: Part, worker: Worker) -> None:
        attempt = Attempt(part=part, worker=worker, key=f"part-{self._id}-{next(self._keys)}")
        part.running.append(attempt)
        worker.running.append(attempt)
        setup = self._setup.model_copy(update={"share": max(1, worker.share)})
        self._pool.submit(send, attempt, setup, self._workforce, self._put)
