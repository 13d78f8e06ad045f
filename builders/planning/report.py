"""Report: what a plan says, for people and for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pydantic import BaseModel, ConfigDict

from builders.history.durations import Basis, Expected
from builders.planning.decision import ACTION_FACTS, WORK, Action, Decision, why
from zoo.catalog.report import Change
from zoo.schema.runtimes import is_portable
from zoo.schema.targets import Label, cell_of

PLAN_VERSION = 1
"""Of the JSON that ``zoo-farm plan --json`` writes; docs/how-to/nightly.md has its fields."""

TIMED = (Action.BUILD, Action.EXPORT, Action.VERIFY)
"""Actions that are expected to take time."""

_MOST_JOBS = 256  # of a matrix: GitHub takes no more
_MODELS_EACH = 8  # of one matrix entry, where that gives no more than so many

_MIB = 2**20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class PlannedEngine(_Part):
    """One engine of a plan.

    Attributes:
        model: Its model.
        archs: Architectures that it serves.
        trt: Its runtime line, as ``TRT=`` says it.
        label: Its targets as one word.
        action: What a run would do.
        reason: Why.
        changed: Fields of its keys that are not what they are of what is published.
        perhaps: Whether it is only built if its ONNX comes out another.
        seconds: Expected of build and proof.
        size: Expected of the engine, bytes.
        basis: Where the expectation comes from.
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
    """What several engines of a plan come to.

    Attributes:
        actions: Action to how many.
        gpu_minutes: Expected for GPUs: builds and proofs.
        cpu_minutes: Expected for the CPU: builds and proofs of CPU engines; in all, exports too.
        mib: Expected of new engines.
        perhaps: How many are only built if their ONNX comes out another; they are counted.
        similar: How many expectations come from other engines.
        unknown: How many engines had no history and are not counted.
    """

    actions: dict[Action, int]
    gpu_minutes: float
    cpu_minutes: float
    mib: float
    perhaps: int
    similar: int
    unknown: int


class MatrixEntry(_Part):
    """One job of a matrix: the variables of a ``make nightly``.

    Attributes:
        gpu: ``GPU=``.
        trt: ``TRT=``; empty for the CPU.
        models: ``MODELS=``.
        runner: Label of the machine: the architecture, where only that one builds it; else ``cpu``.
        engines: How many it is about.
        minutes: Expected; those without history not counted.
    """

    gpu: str
    trt: str
    models: str
    runner: str
    engines: int
    minutes: float


class FarmPlan(_Part):
    """What a run would do.

    Attributes:
        schema_version: Of this record.
        store: URL of the repository.
        engines: One by one.
        targets: Target without model, to what its engines come to.
        total: What all come to.
        notes: What was assumed.
    """

    schema_version: int = PLAN_VERSION
    store: str
    engines: tuple[PlannedEngine, ...]
    targets: dict[str, Expectation]
    total: Expectation
    notes: tuple[str, ...] = ()

    @property
    def work(self) -> tuple[PlannedEngine, ...]:
        """The engines that a run would do something for."""
        return tuple(one for one in self.engines if one.action in WORK)

    def to_json(self) -> str:
        """Returns it as indented JSON."""
        return self.model_dump_json(indent=1)


def planned(decision: Decision, expected: Expected) -> PlannedEngine:
    """Returns what a plan says of a decision.

    Args:
        decision: Which one.
        expected: What its engine takes by history.
    """
    wanted, is_proof = decision.wanted, decision.action is Action.VERIFY
    timed = expected if decision.action in TIMED else Expected()
    return PlannedEngine.model_construct(
        model=decision.model,
        archs=tuple(arch.name for arch in wanted.archs) if wanted else (),
        trt=wanted.toolchain.line.asked if wanted else "",
        label=wanted.label if wanted else "",
        action=decision.action,
        reason=why(decision),
        changed=decision.changed,
        perhaps=decision.perhaps,
        seconds=round(timed.proof if is_proof else timed.seconds, 1),
        size=0 if is_proof else timed.size,
        basis=timed.basis,
    )


def make_plan(
    store: str,
    engines: Iterable[PlannedEngine],
    export_seconds: float,
    notes: Iterable[str] = (),
) -> FarmPlan:
    """Puts a plan together, with its sums."""
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

    An entry is for some models on one target's GPU and runtime: as many models as keep the whole at
    256 entries, 8 where that is enough.
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
    """Yields the lines of a plan: what there is to do and why, what can't be, and the sums."""
    for engines in _alike(plan.engines):
        one = engines[0]
        labels = ", ".join(each.label for each in engines)
        title = ACTION_FACTS[one.action].title
        yield f"{title}: {one.model} {labels}: {one.reason}{_takes(engines)}"
        yield from map(change_line, one.changed)
    if plan.engines:
        yield from _table(plan)
    if plan.total.perhaps:
        yield (
            f"{plan.total.perhaps} of these are only built if the ONNX comes out another; "
            "the sums hold them"
        )
    yield from plan.notes


def _alike(engines: Iterable[PlannedEngine]) -> list[list[PlannedEngine]]:
    """Puts a model's engines together that are made for the same reason."""
    groups: dict[object, list[PlannedEngine]] = {}
    for one in engines:
        if one.action is not Action.NOTHING:
            changed = tuple(change.model_dump_json() for change in one.changed)
            groups.setdefault((one.model, one.action, one.reason, changed), []).append(one)
    return list(groups.values())


def _takes(engines: Sequence[PlannedEngine]) -> str:
    """Says what some engines are expected to take, nothing where that is not known."""
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
