"""A plan as text, as JSON and as a GitHub matrix."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from builders.history.durations import Basis, Expected
from builders.planning.decision import ACTION_FACTS, WORK, Action, Decision, why
from zoo.catalog.report import Change
from zoo.schema.runtimes import is_portable
from zoo.schema.targets import Label, cell_of

PLAN_VERSION = 1
"""Version of the JSON of ``zoo-farm plan --json``; docs/how-to/nightly.md describes its fields."""

TIMED = (Action.BUILD, Action.EXPORT, Action.VERIFY)
"""Actions that are expected to take time."""

_MOST_JOBS = 256  # GitHub's limit for a matrix
_MODELS_EACH = 8  # in a matrix entry, unless the matrix gets too large

_MIB = 2**20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


@dataclass(frozen=True, kw_only=True)
class PlannedEngine:
    """An engine of a plan.

    Attributes:
        model: Its model.
        archs: Architectures that it serves.
        trt: Its runtime line, as a value of ``TRT=``.
        label: Its label.
        action: What a run would do.
        reason: Why.
        changed: Fields of its keys that differ from the published engine's.
        perhaps: Whether it is only built if its ONNX comes out different.
        seconds: Estimated seconds of build and verification.
        size: Estimated size, bytes.
        basis: Where the estimates come from.
    """

    model: str
    archs: tuple[str, ...]
    trt: str
    label: str
    action: Action
    reason: str = ""
    changed: tuple[Change, ...] = ()
    perhaps: bool = False
    seconds: float = 0.0
    size: int = 0
    basis: Basis = "none"


class Expectation(_Part):
    """Totals of several engines of a plan.

    Attributes:
        actions: From action to number of engines.
        gpu_minutes: Estimated minutes of builds and verifications for GPUs.
        cpu_minutes: The same for the CPU; in the grand total, exports too.
        mib: Estimated size of new engines, MiB.
        perhaps: Number of engines only built if their ONNX comes out different; they are included.
        similar: Number of estimates that come from other engines.
        unknown: Number of engines without history; they are not included.
    """

    actions: dict[Action, int]
    gpu_minutes: float
    cpu_minutes: float
    mib: float
    perhaps: int
    similar: int
    unknown: int


class MatrixEntry(_Part):
    """A job of a matrix: the variables of a ``make nightly``.

    Attributes:
        gpu: ``GPU=``.
        trt: ``TRT=``; empty for the CPU.
        models: ``MODELS=``.
        runner: Label of the machine: the architecture if only that GPU builds it, else ``cpu``.
        engines: Number of engines.
        minutes: Estimated minutes, without engines that have no history.
    """

    gpu: str
    trt: str
    models: str
    runner: str
    engines: int
    minutes: float


class FarmPlan(_Part):
    """The work of a run that has not been started.

    Attributes:
        schema_version: Of this record.
        store: URL of the repository.
        engines: The engines.
        targets: From target to totals of its engines.
        total: Totals of all engines.
        notes: Assumptions.
    """

    schema_version: int = PLAN_VERSION
    store: str
    engines: tuple[PlannedEngine, ...]
    targets: dict[str, Expectation]
    total: Expectation
    notes: tuple[str, ...] = ()

    @property
    def work(self) -> tuple[PlannedEngine, ...]:
        """The engines that a run would work on."""
        return tuple(one for one in self.engines if one.action in WORK)

    def to_json(self) -> str:
        """Returns it as indented JSON."""
        return self.model_dump_json(indent=1)


def planned(decision: Decision, expected: Expected) -> PlannedEngine:
    """Returns a decision as an engine of a plan.

    Args:
        decision: The decision.
        expected: The estimate from earlier engines; of nothing unless it takes time.
    """
    wanted, is_proof = decision.wanted, decision.action is Action.VERIFY
    return PlannedEngine(
        model=decision.model,
        archs=wanted.names if wanted else (),
        trt=wanted.toolchain.line.asked if wanted else "",
        label=wanted.label if wanted else "",
        action=decision.action,
        reason=why(decision),
        changed=decision.changed,
        perhaps=decision.perhaps,
        seconds=round(expected.proof if is_proof else expected.seconds, 1),
        size=0 if is_proof else expected.size,
        basis=expected.basis,
    )


def make_plan(
    store: str,
    engines: Iterable[PlannedEngine],
    export_seconds: float,
    notes: Iterable[str] = (),
) -> FarmPlan:
    """Returns a plan with its totals."""
    listed = tuple(engines)
    by_target: dict[str, list[PlannedEngine]] = {}
    for one in listed:
        by_target.setdefault(cell_of(one.label), []).append(one)
    return FarmPlan(
        store=store,
        engines=listed,
        targets={label: _sum(by_target[label], 0) for label in sorted(by_target)},
        total=_sum(listed, export_seconds),
        notes=tuple(notes),
    )


def _sum(engines: Iterable[PlannedEngine], export_seconds: float) -> Expectation:
    listed = list(engines)
    work = [one for one in listed if one.action in TIMED]
    new = [one for one in work if one.action is not Action.VERIFY]
    cpu = sum(one.seconds for one in work if one.archs == ("cpu",))
    return Expectation(
        actions=dict(sorted(Counter(one.action for one in listed).items())),
        gpu_minutes=round((sum(one.seconds for one in work) - cpu) / 60, 2),
        cpu_minutes=round((cpu + export_seconds) / 60, 2),
        mib=round(sum(one.size for one in new) / _MIB, 1),
        perhaps=sum(one.perhaps for one in work),
        similar=sum(one.basis == "similar" for one in work),
        unknown=sum(one.basis == "none" for one in work),
    )


def matrix(plan: FarmPlan) -> dict[str, list[MatrixEntry]]:
    """Returns a plan's work as a GitHub matrix.

    An entry covers several models on the GPUs and runtime of one target: 8, or as many as it takes
    to stay within 256 entries.
    """
    groups: dict[tuple[str, str], dict[str, list[PlannedEngine]]] = {}
    for one in plan.work:
        place = (",".join(one.archs), "" if one.archs == ("cpu",) else one.trt)
        groups.setdefault(place, {}).setdefault(one.model, []).append(one)
    each = _MODELS_EACH
    while sum(-(-len(models) // each) for models in groups.values()) > _MOST_JOBS:
        each *= 2
        if each > len(plan.work):
            break
    entries = []
    for (gpu, trt), models in sorted(groups.items()):
        names = sorted(models)
        for start in range(0, len(names), each):
            chunk = names[start : start + each]
            engines = [one for name in chunk for one in models[name]]
            entries.append(
                MatrixEntry(
                    gpu=gpu,
                    trt=trt,
                    models=",".join(chunk),
                    runner="cpu" if _builds_anywhere(engines[0]) else gpu,
                    engines=len(engines),
                    minutes=round(sum(one.seconds for one in engines) / 60, 1),
                )
            )
    return {"include": entries}


def _builds_anywhere(engine: PlannedEngine) -> bool:
    """Whether a machine without the engine's GPU can build it."""
    return is_portable(Label.read(engine.label).runtime.kind)


def matrix_line(plan: FarmPlan) -> str:
    """Returns the matrix as one line of JSON."""
    found = {name: [one.model_dump() for one in rows] for name, rows in matrix(plan).items()}
    return json.dumps(found, separators=(",", ":"))


def to_text(plan: FarmPlan) -> Iterator[str]:
    """Yields a plan as lines: what is done and why, what is not, and the totals."""
    for engines in _alike(plan.engines):
        one = engines[0]
        labels = ", ".join(each.label for each in engines)
        title = ACTION_FACTS[one.action].title
        yield f"{title}: {f'{one.model} {labels}'.rstrip()}: {one.reason}{_takes(engines)}"
        yield from map(change_line, one.changed)
    if plan.engines:
        yield from _table(plan)
    if plan.total.perhaps:
        yield (
            f"{plan.total.perhaps} of these are built only if the ONNX changes; the totals "
            "include them"
        )
    yield from plan.notes


def _alike(engines: Iterable[PlannedEngine]) -> list[list[PlannedEngine]]:
    """Groups a model's engines that have the same action and reason."""
    groups: dict[object, list[PlannedEngine]] = {}
    for one in engines:
        if one.action is not Action.NOTHING or one.reason:
            changed = tuple(change.model_dump_json() for change in one.changed)
            groups.setdefault((one.model, one.action, one.reason, changed), []).append(one)
    return list(groups.values())


def _takes(engines: Sequence[PlannedEngine]) -> str:
    """Returns the estimated time and size of engines; empty if unknown."""
    seconds, size = sum(one.seconds for one in engines), sum(one.size for one in engines)
    if not seconds:
        return ""
    guess = ", by others alike" if any(one.basis == "similar" for one in engines) else ""
    return f" [{seconds / 60:.1f} min{f', {size / _MIB:.0f} MiB' if size else ''}{guess}]"


def _table(plan: FarmPlan) -> Iterator[str]:
    width = max(len("in all"), *map(len, plan.targets)) + 2
    head = ("published", "to do", "not", "GPU min", "CPU min", "MiB", "no history")
    yield f"{'':<{width}}" + "".join(f"{name:>12}" for name in head)
    for label, row in [*plan.targets.items(), ("in all", plan.total)]:
        done = row.actions.get(Action.NOTHING, 0)
        todo = sum(row.actions.get(action, 0) for action in WORK)
        rest = sum(row.actions.values()) - done - todo
        numbers = (f"{row.gpu_minutes:.1f}", f"{row.cpu_minutes:.1f}", f"{row.mib:.0f}")
        cells = (done, todo, rest, *numbers, row.unknown or "")
        yield (f"{label:<{width}}" + "".join(f"{cell:>12}" for cell in cells)).rstrip()


def change_line(change: Change) -> str:
    """Returns a field of a key that differs, with both values."""
    return f"  {change.field}: {_short(change.before)} -> {_short(change.after)}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
