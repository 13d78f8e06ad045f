"""The workers of a cluster that a pass runs on: who they are, and which engine they all run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zoo.caft.part_worker import describe_worker, end_pass, run_part
from zoo.caft.remote_engine import Engine, RemoteSession
from zoo.caft.roster import Roster
from zoo.caft.worker_kinds import Worker, best_engine
from zoo.client.client import Client
from zoo.client.selection import Machine, select
from zoo.cluster.tls import connect
from zoo.inference.extractor import Extractor
from zoo.schema.index import EngineEntry
from zoo.util.errors import ClusterError

Say = Callable[[str], None]

_PAUSE = 0.5  # seconds between looks while there is no worker
_CLOSE = 5.0  # seconds to disconnect
_LARGEST = "1 GiB"  # messages up to here are no mistake, of which Dask would warn


class Workforce:
    """The workers of a cluster.

    Args:
        scheduler: Address of the scheduler, ``tls://host:8786``.
        certs: Folder of certificates; None for plain TCP on this machine.
        say: Called with messages for the user.
        patience: How long to wait for a worker if there is none, in seconds.

    Raises:
        ClusterError: No scheduler answers, or it refuses the certificate.
        UsageError: The address or a certificate is invalid.
    """

    def __init__(
        self,
        scheduler: str,
        certs: Path | None = None,
        *,
        say: Say = lambda text: None,
        patience: float = 60,
    ) -> None:
        self.scheduler = scheduler
        self.patience = patience
        self.engine: Engine | None = None
        self.say = say
        self._client: Any = connect(scheduler, certs)
        self._lost = False
        self._roster = Roster(say)

    def __enter__(self) -> Workforce:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the engines' processes and disconnects."""
        if not self._lost:
            with suppress(Exception):  # of any class if the scheduler is gone
                workers = list(self._roster.usable())
                self._client.run(end_pass, workers=workers, on_error="ignore", wait=False)
        with suppress(Exception):
            self._client.close(timeout=0 if self._lost else _CLOSE)

    # Engine

    def choose(
        self,
        model: str,
        client: Client,
        *,
        anonymous: bool = False,
        target: str | None = None,
        precision: str | None = None,
        allow_pending: bool = False,
        allow_seeded: bool = False,
    ) -> Extractor:
        """Selects the best engine of a model that workers can run.

        Only workers whose rows are equal to the last bit take part: the kind, GPU before CPU, of
        which there are most. The others are named and left out.

        Args:
            model: Model id.
            client: Reads the repository, which the workers must reach at the same URL.
            anonymous: Whether they read a bucket without credentials.
            target: See :func:`zoo.inference.extractor.load`.
            precision: See there.
            allow_pending: See there.
            allow_seeded: See there.

        Returns:
            An extractor for :func:`zoo.caft.features.cache_features`; it runs nothing itself.

        Raises:
            ClusterError: There are no workers.
            SelectionError: No engine fits any of them.
        """
        index = client.model(model)

        def select_for(machine: Machine) -> EngineEntry:
            return select(
                index,
                machine,
                target=target,
                precision=precision,
                allow_pending=allow_pending,
                allow_seeded=allow_seeded,
            )

        entry, chosen, reason = best_engine(index, select_for, self.wait())
        record = client.record(model, entry)
        self.engine = Engine(store=client.repository.store.url, anonymous=anonymous, record=record)
        self._roster.limit_to(chosen, record.inputs)
        self.say(reason)
        return Extractor(RemoteSession(), record, reason)

    # Workers

    def wait(self) -> list[Worker]:
        """Returns the workers that can take part; waits for one if there is none.

        Raises:
            ClusterError: None came in time, or the scheduler was lost.
        """
        deadline, told = time.monotonic() + self.patience, False
        while True:
            workers = self.look()
            if workers:
                return workers
            if not told:
                self.say(f"waiting up to {self.patience:.0f} s for a worker of {self.scheduler}")
                told = True
            if time.monotonic() >= deadline:
                raise self.no_workers()
            time.sleep(_PAUSE)

    def no_workers(self) -> ClusterError:
        """Returns the error to raise if nobody can do the parts of a pass."""
        left_out = " that can take part" if self._roster.has_left_out else ""
        return ClusterError(
            f"{self.scheduler} has no worker{left_out}; waited {self.patience:.0f} s",
            hint=f"run zoo-farm cluster worker {self.scheduler} on a machine, then the same "
            "command again; finished images stay in the cache",
        )

    def look(self) -> list[Worker]:
        """Returns the workers that are there now and can take part.

        Raises:
            ClusterError: The scheduler was lost.
        """
        try:
            info = self._client.scheduler_info(n_workers=-1)["workers"]
            new = [address for address in info if address not in self._roster]
            said = self._client.run(describe_worker, workers=new, on_error="return") if new else {}
        except Exception as error:  # of any class if the scheduler is gone
            raise self.lost() from error
        for address, text in said.items():
            self._roster.add(address, info[address], text)
        self._roster.keep(info)
        return list(self._roster.usable().values())

    def lost(self) -> ClusterError:
        """Returns the error to raise if the scheduler is gone, and stops asking it."""
        self._lost = True
        return ClusterError(
            f"lost the scheduler {self.scheduler}",
            hint="finished images stay in the cache: start the cluster and run the same command "
            "again",
        )

    def leave_out(self, address: str, name: str, reason: str) -> None:
        """Gives a worker no more parts of this pass, and says why."""
        self._roster.leave_out_of_this_pass(address, name, reason)

    def begin_pass(self) -> None:
        """Asks the workers again that were left out of the pass before."""
        self._roster.begin_pass()

    def remove(self, worker: Worker) -> None:
        """Forgets a worker that has died."""
        self._roster.remove(worker)

    def is_usable(self, worker: Worker) -> bool:
        """Whether a worker may get parts."""
        return self._roster.is_usable(worker)

    def submit(self, worker: Worker, key: str, request: bytes) -> Any:
        """Gives a worker a part; returns Dask's future of the answer.

        Raises:
            ClusterError: The scheduler was lost.
        """
        import dask

        try:
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": _LARGEST}):
                return self._client.submit(
                    run_part,
                    request,
                    key=key,
                    workers=[worker.address],
                    resources=dict.fromkeys(worker.resources, 1),
                    pure=False,
                )
        except Exception as error:  # of any class if the scheduler is gone
            raise self.lost() from error


@contextmanager
def open_workforce(
    scheduler: str, certs: Path | None = None, *, say: Say = lambda text: None, patience: float = 60
) -> Iterator[Workforce]:
    """Connects to a cluster, and disconnects on exit; see :class:`Workforce`."""
    workers = Workforce(scheduler, certs, say=say, patience=patience)
    try:
        yield workers
    finally:
        workers.close()
