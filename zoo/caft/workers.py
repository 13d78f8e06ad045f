"""The workers of a cluster that a pass runs on: who they are, and which engine they all run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from pydantic import ValidationError

from zoo.caft.part_worker import WorkerFacts, describe_worker, end_pass, run_part
from zoo.caft.wire import PROTOCOL
from zoo.caft.worker_kinds import Worker, best_engine, kind_of
from zoo.client.client import Client
from zoo.client.selection import Machine
from zoo.cluster.tls import connect
from zoo.inference.extractor import Extractor
from zoo.runtime.base import Features, Images
from zoo.schema.index import EngineEntry
from zoo.schema.records import BuildRecord
from zoo.util.causes import plain
from zoo.util.errors import ClusterError, RunError
from zoo.util.version import __version__

Say = Callable[[str], None]

_PAUSE = 0.5  # seconds between looks while there is no worker
_CLOSE = 5.0  # seconds to disconnect
_LARGEST = "1 GiB"  # messages up to here are no mistake, of which Dask would warn


class _Info(TypedDict, total=False):
    """What Dask's scheduler says of a worker."""

    name: str | int
    resources: Mapping[str, float]


class _Elsewhere:
    """The session of an engine that runs on workers, not in this process."""

    def __enter__(self) -> _Elsewhere:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def features(self, images: Images) -> Features:
        """Refuses.

        Raises:
            RunError: Always.
        """
        raise RunError("this engine runs on the workers of a cluster, in a feature pass only")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Refuses; see :meth:`features`."""
        raise RunError("this engine runs on the workers of a cluster, in a feature pass only")

    def close(self) -> None:
        """Does nothing."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The engine of a pass, where workers find it.

    Attributes:
        store: URL of the repository.
        anonymous: Whether a bucket is read without credentials.
        record: The engine's build record, whose signature was checked here.
    """

    store: str
    anonymous: bool
    record: BuildRecord


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
        self._kind: tuple[Any, ...] | None = None
        self._lost = False
        self._known: dict[str, Worker | None] = {}
        """Workers by address; None for those that are left out."""

    def __enter__(self) -> Workforce:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the engines' processes and disconnects."""
        if not self._lost:
            with suppress(Exception):  # of any class if the scheduler is gone
                workers = list(self._usable())
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

        def select(machine: Machine) -> EngineEntry:
            return client.select(
                model,
                machine,
                target=target,
                precision=precision,
                allow_pending=allow_pending,
                allow_seeded=allow_seeded,
            )

        entry, chosen, reason = best_engine(model, select, self.wait())
        record = client.record(model, entry)
        self.engine = Engine(store=client.repository.store.url, anonymous=anonymous, record=record)
        self._kind = kind_of(chosen, record.inputs)
        for worker in list(self._usable().values()):
            self._check_kind(worker)
        self.say(reason)
        return Extractor(_Elsewhere(), record, reason)

    def _check_kind(self, worker: Worker) -> None:
        """Leaves a worker out whose rows might differ in the last bits."""
        if self._kind is None or self.engine is None:
            return
        names = ("runtime", "processor", "decoder of photos")
        kind = kind_of(worker.facts, self.engine.record.inputs)
        differ = [name for name, a, b in zip(names, kind, self._kind, strict=True) if a != b]
        if differ:
            self.leave_out(
                worker.address,
                worker.name,
                f"its {' and '.join(differ)} is another than the others', and so might its rows be",
            )

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
            if time.monotonic() >= deadline:
                raise self.no_workers()
            if not told:
                self.say(f"waiting up to {self.patience:.0f} s for a worker of {self.scheduler}")
                told = True
            time.sleep(_PAUSE)

    def no_workers(self) -> ClusterError:
        """Returns the error to raise if nobody can do the parts of a pass."""
        left_out = " that can take part" if None in self._known.values() else ""
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
            new = [address for address in info if address not in self._known]
            said = self._client.run(describe_worker, workers=new, on_error="return") if new else {}
        except Exception as error:  # of any class if the scheduler is gone
            raise self.lost() from error
        for address, text in said.items():
            self._meet(address, info[address], text)
        self._known = {a: worker for a, worker in self._known.items() if a in info}
        self._count_shares()
        return list(self._usable().values())

    def lost(self) -> ClusterError:
        """Returns the error to raise if the scheduler is gone, and stops asking it."""
        self._lost = True
        return ClusterError(
            f"lost the scheduler {self.scheduler}",
            hint="finished images stay in the cache: start the cluster and run the same command "
            "again",
        )

    def leave_out(self, address: str, name: str, reason: str) -> None:
        """Gives a worker no more parts, and says why."""
        self._known[address] = None
        self.say(f"left out {name}: {reason}")

    def remove(self, worker: Worker) -> None:
        """Forgets a worker that has died."""
        self._known[worker.address] = None

    def is_usable(self, worker: Worker) -> bool:
        """Whether a worker may get parts."""
        return self._known.get(worker.address) is worker

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

    def _usable(self) -> dict[str, Worker]:
        return {a: worker for a, worker in self._known.items() if worker is not None}

    def _meet(self, address: str, info: _Info, text: Any) -> None:
        """Notes a worker that has joined, or why it can't take part."""
        name = plain(str(info.get("name", address)), 100)
        try:
            facts = WorkerFacts.model_validate_json(text)
        except (ValidationError, TypeError):
            reason = "it has no caft-zoo, or another version; install this one, "
            self.leave_out(address, name, f"{reason}{__version__}, there")
            return
        if (facts.version, facts.protocol) != (__version__, PROTOCOL):
            self.leave_out(
                address,
                name,
                f"it runs version {plain(facts.version, 40)} (messages {facts.protocol}), this is "
                f"{__version__} ({PROTOCOL}): install the same on both",
            )
            return
        worker = Worker(
            address=address, name=name, facts=facts, resources=info.get("resources") or {}, share=0
        )
        self._known[address] = worker
        self._check_kind(worker)

    def _count_shares(self) -> None:
        """Counts the workers on the machine of each that is new."""
        workers = self._usable().values()
        for worker in workers:
            if not worker.share:
                worker.share = sum(other.facts.host == worker.facts.host for other in workers)


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
