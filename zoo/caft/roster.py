"""The workers of a cluster: who can take part in a pass, who is left out, and why."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, TypedDict

from pydantic import ValidationError

from zoo.caft.part_worker import WorkerFacts
from zoo.caft.wire import PROTOCOL
from zoo.caft.worker_kinds import Worker, kind_of
from zoo.schema.keys import BuildInputs
from zoo.util.causes import plain
from zoo.util.version import __version__


class Info(TypedDict, total=False):
    """The scheduler's description of a worker."""

    name: str | int
    resources: Mapping[str, float]


class Roster:
    """Workers by address, and those that are left out.

    Args:
        say: Called with messages for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._known: dict[str, Worker | None] = {}
        """Workers by address; None for those that are left out."""
        self._until_next: set[str] = set()
        self._inputs: BuildInputs | None = None
        self._kind: tuple[Any, ...] | None = None

    def __contains__(self, address: str) -> bool:
        return address in self._known

    @property
    def has_left_out(self) -> bool:
        """Whether a worker that is there can't take part."""
        return None in self._known.values()

    def usable(self) -> dict[str, Worker]:
        """Returns the workers that may get parts, by address."""
        return {a: worker for a, worker in self._known.items() if worker is not None}

    def is_usable(self, worker: Worker) -> bool:
        """Whether a worker may get parts."""
        return self._known.get(worker.address) is worker

    def limit_to(self, chosen: WorkerFacts, inputs: BuildInputs) -> None:
        """Leaves out all workers, now and later, whose rows might differ in the last bits.

        Args:
            chosen: A worker of the kind that stays.
            inputs: The engine's build inputs.
        """
        self._inputs, self._kind = inputs, kind_of(chosen, inputs)
        for worker in list(self.usable().values()):
            self._check_kind(worker)

    def add(self, address: str, info: Info, text: Any) -> None:
        """Adds a worker that has joined, or leaves it out and says why.

        Args:
            address: Its address in the cluster.
            info: What the scheduler says of it.
            text: Its :class:`WorkerFacts` as JSON; anything else if it could not answer.
        """
        name = plain(str(info.get("name", address)), 100)
        try:
            facts = WorkerFacts.model_validate_json(text)
        except (ValidationError, TypeError):
            reason = f"it has no caft-zoo, or a different version; install {__version__} there"
            self.leave_out(address, name, reason)
            return
        if (facts.version, facts.protocol) != (__version__, PROTOCOL):
            self.leave_out(
                address,
                name,
                f"it runs version {plain(facts.version, 40)} (messages {facts.protocol}), this "
                f"machine {__version__} ({PROTOCOL}): install the same version on both",
            )
            return
        worker = Worker(
            address=address, name=name, facts=facts, resources=info.get("resources") or {}, share=0
        )
        self._known[address] = worker
        self._check_kind(worker)

    def keep(self, addresses: Container[str]) -> None:
        """Forgets the workers that are no longer in the cluster."""
        self._known = {a: worker for a, worker in self._known.items() if a in addresses}
        self._count_shares()

    def leave_out(self, address: str, name: str, reason: str) -> None:
        """Gives a worker no more parts, and says why."""
        self._known[address] = None
        self._say(f"left out {name}: {reason}")

    def leave_out_of_this_pass(self, address: str, name: str, reason: str) -> None:
        """Gives a worker no more parts of this pass, and says why."""
        self.leave_out(address, name, reason)
        self._until_next.add(address)

    def begin_pass(self) -> None:
        """Forgets the workers that were left out of the pass before; they are asked again."""
        self._known = {a: worker for a, worker in self._known.items() if a not in self._until_next}
        self._until_next.clear()

    def remove(self, worker: Worker) -> None:
        """Forgets a worker that has died."""
        self._known[worker.address] = None

    def _check_kind(self, worker: Worker) -> None:
        """Leaves a worker out whose rows might differ in the last bits."""
        if self._kind is None or self._inputs is None:
            return
        names = ("runtime", "processor", "decoder of photos")
        kind = kind_of(worker.facts, self._inputs)
        differ = [name for name, a, b in zip(names, kind, self._kind, strict=True) if a != b]
        if differ:
            self.leave_out(
                worker.address,
                worker.name,
                f"it has a different {' and '.join(differ)} than the other workers, so its rows "
                "might differ",
            )

    def _count_shares(self) -> None:
        """Counts the workers on the machine of each that is new."""
        workers = self.usable().values()
        for worker in workers:
            if not worker.share:
                worker.share = sum(other.facts.host == worker.facts.host for other in workers)
