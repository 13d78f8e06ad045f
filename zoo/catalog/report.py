"""The report: what was rebuilt and why, what failed, how numbers drifted, what is missing.

What an index tells by itself is worked out here. What failed is in no index: the runs of a night
say it of themselves, as a :class:`NightlyRun`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.catalog.facts import archs_of, by_record
from zoo.catalog.night import Drift, Part
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.measurements import MachineDescription
from zoo.schema.records import BuildRecord, ExportRecord, Status
from zoo.schema.targets import arch_of, cell_of
from zoo.schema.targets_table import PRECISIONS, target_table


class Change(Part):
    """A field of a key that is not what it was.

    Attributes:
        field: Its path, ``toolchain.version``.
        before: JSON value of the older engine; None where it had no such field.
        after: The same of the newer one.
    """

    field: str
    before: Any = None
    after: Any = None


class Rebuilt(Part):
    """An engine that took the place of another.

    Attributes:
        model: Its model.
        targets: Labels that it serves.
        record: Its build key.
        previous: Build key of the one before.
        created: When it was built.
        changed: Why: what differs in what went in. Empty where a record could not be read.
    """

    model: str
    targets: tuple[str, ...]
    record: str
    previous: str
    created: str
    changed: tuple[Change, ...] = ()


class Missing(Part):
    """Precisions that the targets table has for a model on an architecture, and the index has not.

    Attributes:
        model: The model.
        arch: The architecture.
        precisions: Those without an engine and without a reason why there is none.
    """

    model: str
    arch: str
    precisions: tuple[str, ...]


class Newest(Part):
    """A recent build."""

    model: str
    targets: tuple[str, ...]
    record: str
    created: str
    status: str


class ModelReport(Part):
    """What one model adds to the report."""

    rebuilt: tuple[Rebuilt, ...] = ()
    drift: tuple[Drift, ...] = ()
    missing: tuple[Missing, ...] = ()
    newest: tuple[Newest, ...] = ()


def successions(model: ModelIndex) -> Iterator[tuple[EngineEntry, EngineEntry, str]]:
    """Yields each current engine with the newest that it superseded, and a label of both."""
    old = [engine for engine in model.engines if engine.superseded is not None]
    for engine in model.current:
        cells = {_cell(label): label for label in engine.targets}
        before = [
            (one.created, one, cells[_cell(label)])
            for one in old
            for label in one.targets
            if _cell(label) in cells and one.record != engine.record
        ]
        if before:
            _, previous, label = max(before, key=lambda found: found[0])
            yield engine, previous, label


def changes(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """Yields the fields in which two JSON values differ, in order of their paths."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            below = f"{path}.{name}" if path else name
            yield from changes(before.get(name), after.get(name), below)
    elif before != after:
        yield Change(field=path, before=before, after=after)


def why_rebuilt(
    before: tuple[BuildRecord, ExportRecord | None],
    after: tuple[BuildRecord, ExportRecord | None],
) -> tuple[Change, ...]:
    """Says which inputs of two engines differ; of their exports too, where the ONNX does."""
    found = list(changes(_inputs(before[0]), _inputs(after[0])))
    old, new = before[1], after[1]
    if before[0].inputs.onnx != after[0].inputs.onnx and old is not None and new is not None:
        exports = changes(_inputs(old), _inputs(new))
        found += [one.model_copy(update={"field": f"export.{one.field}"}) for one in exports]
    return tuple(found)


def _inputs(record: BuildRecord | ExportRecord) -> dict[str, Any]:
    return record.inputs.model_dump(mode="json")


def drift(model: str, previous: EngineEntry, engine: EngineEntry, label: str) -> Iterator[Drift]:
    """Yields how an engine's numbers differ from those of the one before it.

    Latency counts only where both were timed on the same kind of machine.
    """
    common: dict[str, Any] = {"model": model, "target": label, "record": engine.record}
    if previous.verification and engine.verification:
        old = {row.batch: row.worst_cosine for row in previous.verification.batches}
        for row in engine.verification.batches:
            if row.batch in old:
                yield Drift(
                    **common, measure="cosine", batch=row.batch,
                    before=old[row.batch], after=row.worst_cosine,
                )  # fmt: skip
    one, other = previous.benchmark, engine.benchmark
    if one and other and _machine(one.machine) == _machine(other.machine):
        old = {row.batch: row.latency_ms for row in one.batches}
        for timed in other.batches:
            if timed.batch in old:
                yield Drift(
                    **common, measure="latency", batch=timed.batch,
                    before=old[timed.batch], after=timed.latency_ms,
                )  # fmt: skip


def missing(model: ModelIndex) -> list[Missing]:
    """Returns what the targets table would allow and nobody has built, by architecture."""
    table = target_table()
    known: set[tuple[str, str]] = {
        (arch, engine.precision) for engine in model.current for arch in archs_of(engine)
    }
    known |= {(arch_of(label), cell.precision) for cell in model.disabled for label in cell.targets}
    found = []
    for arch in table.arch:
        served = {one for line in table.line.values() for one in line.cell(arch).precisions}
        lacking = tuple(p for p in PRECISIONS if p in served and (arch, p) not in known)
        if lacking:
            found.append(Missing(model=model.model, arch=arch, precisions=lacking))
    return found


def newest(model: ModelIndex) -> list[Newest]:
    """Returns a model's current engines, the newest first."""
    found = []
    for record, entries in by_record(model.current).items():
        labels = tuple(label for entry in entries for label in entry.targets)
        found.append(
            Newest(
                model=model.model,
                targets=labels,
                record=record,
                created=entries[0].created,
                status=Status.VERIFIED if _all_verified(entries) else entries[-1].status,
            )
        )
    return sorted(found, key=lambda one: one.created, reverse=True)


def _all_verified(entries: list[EngineEntry]) -> bool:
    return all(entry.status == Status.VERIFIED for entry in entries)


def _cell(label: str) -> str:
    return cell_of(label)


def _machine(machine: MachineDescription) -> object:
    return machine.gpu_name or machine.cpu
