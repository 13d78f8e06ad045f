"""Kinds of workers of a cluster, and the engine that the best kind runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from zoo.caft.part_worker import WorkerFacts
from zoo.client.selection import Machine, fit, why
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.keys import BuildInputs
from zoo.util.errors import SelectionError


@dataclass(kw_only=True, eq=False)
class Worker:
    """A worker that can run the engine of the pass.

    Attributes:
        address: Its address in the cluster; a worker that is started again has another.
        name: Its name.
        facts: What it says of itself.
        resources: What Dask counts there: a part takes all, so that nothing else runs beside it.
        share: Number of workers on its machine when it was first seen.
        shares_files: Whether it sees the files of the pass; None if it is not known.
        running: What it was given and has not answered, oldest first.
    """

    address: str
    name: str
    facts: WorkerFacts
    resources: Mapping[str, float] = field(default_factory=dict)
    share: int = 1
    shares_files: bool | None = None
    running: list[Any] = field(default_factory=list)


def best_engine(
    index: ModelIndex, select: Callable[[Machine], EngineEntry], workers: list[Worker]
) -> tuple[EngineEntry, WorkerFacts, str]:
    """Returns the best engine that workers can run.

    Args:
        index: The index that is selected from.
        select: Selects the best engine for a machine.
        workers: The workers.

    Returns:
        The engine, a worker of the kind that it was selected for, and the reason.

    Raises:
        SelectionError: No engine fits any of them.
    """
    failed: SelectionError | None = None
    for facts, count in _kinds(workers):
        machine = _machine(facts)
        try:
            entry = select(machine)
            misfit = fit(entry, machine)[1]
        except SelectionError as error:
            failed = failed or error
            continue
        if misfit is None:
            words = f"{count} worker" + ("s" if count > 1 else "")
            return entry, facts, f"{index.model}: {why(entry, machine, index)}; on {words}"
        failed = failed or SelectionError(f"{', '.join(entry.targets)} {misfit}")
    assert failed is not None
    raise SelectionError(f"no worker can run it: {failed.message}", hint=failed.hint)


def kind_of(facts: WorkerFacts, inputs: BuildInputs) -> tuple[Any, ...]:
    """Returns what must be equal for rows to be equal: runtime, processor, decoders of photos.

    Args:
        facts: What a worker says of itself.
        inputs: The engine's build inputs.
    """
    on_cpu = tuple(inputs.archs) == ("cpu",)
    chains = tuple(c.model_dump_json() for c in facts.toolchains if c.kind == inputs.toolchain.kind)
    decoders = facts.decoders[:1] if on_cpu else facts.decoders
    return chains, facts.vectors if on_cpu else facts.gpu, decoders


def _kinds(workers: list[Worker]) -> Iterator[tuple[WorkerFacts, int]]:
    """Yields each kind of worker and its number: those with GPUs first, then the most frequent."""
    by_kind = sorted(workers, key=lambda worker: _key(worker.facts))
    groups = [list(group) for _, group in groupby(by_kind, lambda worker: _key(worker.facts))]
    groups.sort(key=lambda group: (group[0].facts.gpu is None, -len(group)))
    for group in groups:
        yield group[0].facts, len(group)


def _key(facts: WorkerFacts) -> str:
    return facts.model_copy(update={"host": ""}).model_dump_json()


def _machine(facts: WorkerFacts) -> Machine:
    return Machine(archs=facts.archs, toolchains=facts.toolchains, driver=facts.driver)
