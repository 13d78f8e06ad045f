"""A model's part of the report: rebuilt engines and why, drift, missing and recent engines.

All of it is derived from the index. Failures are in no index: the farm's summary of a nightly run,
:class:`zoo.catalog.night.NightlyRun`, lists them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from zoo.catalog.facts import archs_of, by_record, in_order, in_table_order
from zoo.catalog.night import Drift, Part
from zoo.catalog.place import Place
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.measurements import MachineDescription
from zoo.schema.records import BuildRecord, ExportRecord, Status
from zoo.schema.targets import arch_of, cell_of, on_gpu
from zoo.schema.targets_table import PRECISIONS, target_table


class Change(Part):
    """A field of a key that differs between two engines.

    Attributes:
        field: Its path, ``toolchain.version``.
        before: The older engine's JSON value, None if it has no such field.
        after: The newer engine's, likewise.
    """

    field: str
    before: Any = None
    after: Any = None


class Rebuilt(Part):
    """An engine that superseded another.

    Attributes:
        model: Its model.
        targets: Labels of the targets that it serves.
        record: Its build key.
        previous: Build key of the superseded engine.
        created: When it was built.
        changed: Inputs that differ, the reason for the rebuild. Empty if a record is unreadable.
    """

    model: str
    targets: tuple[str, ...]
    record: str
    previous: str
    created: str
    changed: tuple[Change, ...] = ()


class Missing(Part):
    """Precisions that an architecture supports but a model has no engine for.

    Attributes:
        model: The model.
        arch: The architecture.
        precisions: Precisions with neither an engine nor a disabled cell.
    """

    model: str
    arch: str
    precisions: tuple[str, ...]


class Newest(Part):
    """A recent build.

    Attributes:
        model: Its model.
        targets: Labels of the targets that it serves.
        record: Its build key.
        created: When it was built.
        status: Its status on every target.
        rebuild: The command that builds it again from a checkout.
    """

    model: str
    targets: tuple[str, ...]
    record: str
    created: str
    status: str
    rebuild: str


class ModelReport(Part):
    """A model's part of the report.

    Attributes:
        rebuilt: Its engines that superseded others.
        drift: How their measurements differ from those of the engines before.
        missing: What was not built.
        newest: Its current engines, the newest first.
        uncompared: Whether it has a CPU engine and none was timed beside PyTorch.
    """

    rebuilt: tuple[Rebuilt, ...] = ()
    drift: tuple[Drift, ...] = ()
    missing: tuple[Missing, ...] = ()
    newest: tuple[Newest, ...] = ()
    uncompared: bool = False


def successions(model: ModelIndex) -> Iterator[tuple[EngineEntry, EngineEntry, str]]:
    """Yields each current engine, the newest engine that it superseded, and their target."""
    superseded = [engine for engine in model.engines if engine.superseded is not None]
    for engine in model.current:
        cells = {cell_of(label): label for label in engine.targets}
        candidates = [
            (old, cells[cell_of(label)])
            for old in superseded
            for label in old.targets
            if cell_of(label) in cells and old.record != engine.record
        ]
        if candidates:
            previous, label = max(candidates, key=lambda candidate: candidate[0].created)
            yield engine, previous, label


def changes(before: JsonValue, after: JsonValue, path: str = "") -> Iterator[Change]:
    """Yields the fields in which two JSON values differ, ordered by path."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            field = f"{path}.{name}" if path else name
            yield from changes(before.get(name), after.get(name), field)
    elif before != after:
        yield Change(field=path, before=before, after=after)


def why_rebuilt(
    before: tuple[BuildRecord, ExportRecord | None],
    after: tuple[BuildRecord, ExportRecord | None],
) -> tuple[Change, ...]:
    """Returns the inputs in which two engines differ; if the ONNX does, its export's inputs too."""
    differences = list(changes(_inputs(before[0]), _inputs(after[0])))
    old, new = before[1], after[1]
    if before[0].inputs.onnx != after[0].inputs.onnx and old is not None and new is not None:
        differences += [
            change.model_copy(update={"field": f"export.{change.field}"})
            for change in changes(_inputs(old), _inputs(new))
        ]
    return tuple(differences)


def _inputs(record: BuildRecord | ExportRecord) -> JsonValue:
    inputs: JsonValue = record.inputs.model_dump(mode="json")
    return inputs


def drift(model: str, previous: EngineEntry, engine: EngineEntry, label: str) -> Iterator[Drift]:
    """Yields how an engine's measurements differ from those of the engine that it superseded.

    Latencies are compared only if both engines were benchmarked on the same kind of machine.
    """
    common = {"model": model, "target": label, "record": engine.record}
    if previous.verification and engine.verification:
        old = {row.batch: row.worst_cosine for row in previous.verification.batches}
        for row in engine.verification.batches:
            if row.batch in old:
                yield Drift(
                    **common, measure="cosine", batch=row.batch,
                    before=old[row.batch], after=row.worst_cosine,
                )  # fmt: skip
    yield from _slowdown(common, previous, engine)


def _slowdown(
    common: Mapping[str, str], previous: EngineEntry, engine: EngineEntry
) -> Iterator[Drift]:
    """Yields ratios to PyTorch where both engines have some, latencies elsewhere."""
    ratios: set[int] = set()
    compared = previous.comparison, engine.comparison
    # Another PyTorch, or another way of running it, is another reference.
    same = compared[0] and compared[1] and compared[0].pytorch == compared[1].pytorch
    if same and compared[0] and compared[1] and _same(compared[0].machine, compared[1].machine):
        old_rows = {row.batch: row for row in compared[0].batches}
        for row in compared[1].batches:
            old_row = old_rows.get(row.batch)
            if not old_row or old_row.ratio is None or row.ratio is None:
                continue
            if old_row.ratio_interval and row.ratio_interval:
                ratios.add(row.batch)
                yield Drift(
                    **common, measure="ratio", batch=row.batch,
                    before=old_row.ratio, after=row.ratio,
                    before_interval=old_row.ratio_interval, after_interval=row.ratio_interval,
                )  # fmt: skip
    before, after = previous.benchmark, engine.benchmark
    if before and after and _same(before.machine, after.machine):
        old = {row.batch: row for row in before.batches}
        for timed in after.batches:
            if timed.batch in old and timed.batch not in ratios:
                yield Drift(
                    **common, measure="latency", batch=timed.batch,
                    before=old[timed.batch].latency_ms, after=timed.latency_ms,
                    before_interval=old[timed.batch].interval_ms, after_interval=timed.interval_ms,
                )  # fmt: skip


def _same(before: MachineDescription, after: MachineDescription) -> bool:
    return _machine(before) == _machine(after)


def missing(model: ModelIndex) -> list[Missing]:
    """Returns the precisions that the targets table allows but that were not built, by GPU."""
    table = target_table()
    known: set[tuple[str, str]] = {
        (arch, engine.precision) for engine in model.current for arch in archs_of(engine)
    }
    known |= {(arch_of(label), cell.precision) for cell in model.disabled for label in cell.targets}
    gaps = []
    for arch in table.arch:
        supported = {name for line in table.line.values() for name in line.cell(arch).precisions}
        lacking = tuple(p for p in PRECISIONS if p in supported and (arch, p) not in known)
        if lacking:
            gaps.append(Missing(model=model.model, arch=arch, precisions=lacking))
    return gaps


def newest(model: ModelIndex, place: Place) -> list[Newest]:
    """Returns a model's current engines, the newest first, of the repository at a place."""
    builds = []
    for record, entries in by_record(model.current).items():
        labels = in_table_order(label for entry in entries for label in entry.targets)
        builds.append(
            Newest(
                model=model.model,
                targets=labels,
                record=record,
                created=entries[0].created,
                status=Status.VERIFIED if _all_verified(entries) else entries[-1].status,
                rebuild=_rebuild(model.model, entries, place),
            )
        )
    return sorted(builds, key=lambda build: build.created, reverse=True)


def _rebuild(model: str, entries: list[EngineEntry], place: Place) -> str:
    """Returns the command that builds an engine again; its build key names its inputs."""
    engine, line = entries[0], entries[0].toolchain.line
    served = {arch for entry in entries for arch in archs_of(entry)}
    archs = ",".join(in_order(served, target_table().arch))
    words = [f"MODELS={model}", f"GPU={shlex.quote(archs)}"]
    if on_gpu(line.kind):
        words.append(f"TRT={line.asked}")
    words.append(f"PRECISION={shlex.quote(engine.precision)}")
    if engine.dry_run and "WEIGHTS" not in place.checkout:
        words.append("WEIGHTS=seeded")
    return place.make("zoo", *words)


def is_uncompared(model: ModelIndex) -> bool:
    """Returns whether a model has a CPU engine and none was timed beside PyTorch."""
    on_cpu = [engine for engine in model.current if "cpu" in archs_of(engine)]
    return bool(on_cpu) and all(engine.comparison is None for engine in on_cpu)


def _all_verified(entries: list[EngineEntry]) -> bool:
    return all(entry.status == Status.VERIFIED for entry in entries)


def _cell(label: str) -> str:
    return cell_of(label)


def _machine(machine: MachineDescription) -> object:
    return machine.gpu_name or machine.cpu
