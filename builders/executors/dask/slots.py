"""Slots: which workers of a cluster are free. Threads wait here for one that can do their job.

A job goes to a worker that is idle, never to one that has another: when a worker dies, whatever
it had is blamed, and only the job that killed it may be.
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
        patience: Seconds to wait for a worker that can do a job where there is none at all: one
            that died is being started again.
    """

    def __init__(self, patience: float = 60) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._slots: dict[str, Slot] = {}
        self._busy: set[str] = set()
        self._lost: set[str] = set()
        self._stopped: ClusterError | None = None

    def known(self) -> dict[str, Slot]:
        """Returns the workers that are there, by address."""
        with self._changed:
            return dict(self._slots)

    def update(self, found: Mapping[str, Slot]) -> None:
        """Takes in which workers there are now. An address that was lost does not come back."""
        with self._changed:
            self._lost &= found.keys()
            self._slots = {a: slot for a, slot in found.items() if a not in self._lost}
            self._changed.notify_all()

    def take(self, needs: frozenset[str]) -> tuple[str, Slot]:
        """Waits for an idle worker that has all that is needed, and makes it busy.

        Of several, the one that can do least else.

        Raises:
            NotRunError: There is no such worker, idle or not, and none came.
            ClusterError: Work has stopped.
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
        """Makes a worker idle again."""
        with self._changed:
            self._busy.discard(address)
            self._changed.notify_all()

    def lose(self, address: str) -> None:
        """Forgets a worker that has died; another address takes its place."""
        with self._changed:
            self._lost.add(address)
            self._slots.pop(address, None)
            self._changed.notify_all()

    def stop(self, reason: ClusterError) -> None:
        """Lets everybody who waits, and who comes, have an error."""
        with self._changed:
            self._stopped = self._stopped or reason
            self._changed.notify_all()
