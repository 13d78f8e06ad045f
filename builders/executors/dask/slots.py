"""Tracks which workers of a cluster are idle; threads wait here for one that can run their job.

A job is only given to an idle worker: if a worker dies, the job that it was running is blamed, so
there must be no other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from builders.executors.dask.resources import Slot, describe
from zoo.util.errors import ClusterError, NotRunError


class Slots:
    """The workers of a cluster, by address, and which of them are busy.

    Args:
        patience: How long to wait for a worker that can run a job if there is none, seconds: one
            that died may be restarting.
    """

    def __init__(self, patience: float = 60) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._slots: dict[str, Slot] = {}
        self._busy: set[str] = set()
        self._lost: set[str] = set()
        self._stopped: ClusterError | None = None

    def known(self) -> dict[str, Slot]:
        """Returns the workers by address."""
        with self._changed:
            return dict(self._slots)

    def update(self, current: Mapping[str, Slot]) -> None:
        """Replaces the list of workers. An address that was lost does not come back."""
        with self._changed:
            self._lost &= current.keys()
            self._slots = {a: slot for a, slot in current.items() if a not in self._lost}
            self._changed.notify_all()

    def take(self, needs: frozenset[str]) -> tuple[str, Slot]:
        """Waits for an idle worker with the needed resources and marks it busy.

        If there are several, the one with the fewest resources is returned.

        Raises:
            NotRunError: No worker has the resources, and none joined in time.
            ClusterError: The executor has stopped.
        """
        deadline: float | None = None
        with self._changed:
            while True:
                if self._stopped:
                    raise self._stopped
                able = {a: slot for a, slot in self._slots.items() if slot.has(needs)}
                if idle := able.keys() - self._busy:
                    address = min(idle, key=lambda a: (len(able[a].resources), able[a].name))
                    self._busy.add(address)
                    return address, able[address]
                if able:
                    deadline = None
                elif deadline is None:
                    deadline = time.monotonic() + self._patience
                elif time.monotonic() >= deadline:
                    raise NotRunError(
                        f"no worker can do it: it needs {', '.join(sorted(needs))}",
                        hint=f"{describe(self._slots.values())}; "
                        "zoo-farm cluster worker adds the machine that it runs on",
                    )
                self._changed.wait(1 if deadline is not None else None)

    def give(self, address: str) -> None:
        """Marks a worker idle again."""
        with self._changed:
            self._busy.discard(address)
            self._changed.notify_all()

    def lose(self, address: str) -> None:
        """Removes a worker that died; if it restarts, it has another address."""
        with self._changed:
            self._lost.add(address)
            self._slots.pop(address, None)
            self._changed.notify_all()

    def stop(self, reason: ClusterError) -> None:
        """Makes all current and future calls of :meth:`take` raise an error."""
        with self._changed:
            self._stopped = self._stopped or reason
            self._changed.notify_all()
