"""The workers that a pass over a cluster has at the moment, and which of them is free."""

from __future__ import annotations

import time

from zoo.caft.parts import Part
from zoo.caft.sending import Attempt
from zoo.caft.worker_kinds import Worker
from zoo.caft.workers import Workforce
from zoo.util.errors import ClusterError

AHEAD = 2
"""Parts of a worker: one that it runs, and one that waits there."""

_LOOK = 2.0  # seconds between looks at the list of workers


class Crew:
    """Workers of a pass.

    Args:
        workforce: The workers of the cluster.

    Attributes:
        usable: Those that may get parts.

    Raises:
        ClusterError: There is none, and none came in time.
    """

    def __init__(self, workforce: Workforce) -> None:
        self._workforce = workforce
        self.usable = workforce.wait()
        self._looked = time.monotonic()
        self._fault: tuple[str, str | None] | None = None
        """Why the last worker was left out, and what to do about it."""
        self._empty_since: float | None = None

    def look(self) -> list[Worker]:
        """Updates the list of workers from time to time; returns those that are gone.

        Raises:
            ClusterError: There is no worker any more, or the scheduler was lost.
        """
        if time.monotonic() - self._looked < _LOOK and self.usable:
            return []
        self._looked = time.monotonic()
        before, self.usable = self.usable, self._workforce.look()
        self._check_somebody()
        return [worker for worker in before if worker not in self.usable]

    def _check_somebody(self) -> None:
        """Ends the pass if there has been no worker for a while."""
        if self.usable:
            self._empty_since = None
            return
        if self._fault is not None:
            raise ClusterError(f"no worker can run the pass: {self._fault[0]}", hint=self._fault[1])
        patience = self._workforce.patience
        if self._empty_since is None:
            self._empty_since = time.monotonic()
            self._workforce.say(f"no worker is left; waiting up to {patience:.0f} s for another")
        if time.monotonic() - self._empty_since > patience:
            raise self._workforce.no_workers()

    def free(self, part: Part) -> Worker | None:
        """Returns the worker with the fewest parts, rather one that has not failed at this part."""
        failed = (*part.died_on, part.not_finite)
        free = [worker for worker in self.usable if len(worker.running) < AHEAD]
        free.sort(key=lambda worker: (worker.name in failed, len(worker.running)))
        return free[0] if free else None

    def idle(self) -> Worker | None:
        """Returns a worker that has nothing to do, None if there is none."""
        return next((worker for worker in self.usable if not worker.running), None)

    def lose(self, worker: Worker) -> list[Attempt]:
        """Removes a worker that has died; returns what it had, oldest first."""
        self._workforce.remove(worker)
        self._workforce.say(f"lost the worker {worker.name}; its parts will be run again")
        return self._taken_from(worker)

    def leave_out(self, worker: Worker, reason: str, hint: str | None) -> None:
        """Gives a worker no more parts; what it has will be done by others."""
        self._taken_from(worker)
        self._workforce.leave_out(worker.address, worker.name, reason)
        self._fault = (f"{worker.name}: {reason}", hint)

    def dismiss(self) -> None:
        """Cancels all that runs."""
        for worker in list(self.usable):
            self._taken_from(worker)

    def _taken_from(self, worker: Worker) -> list[Attempt]:
        running: list[Attempt] = worker.running
        worker.running = []
        for attempt in running:
            attempt.drop()
            attempt.part.running.remove(attempt)
        self.usable = [each for each in self.usable if each is not worker]
        return running
