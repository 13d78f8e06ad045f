"""Returns the time, memory and size of a repository's exports and engines, from their records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zoo.repository.repository import Repository
from zoo.schema.records import BuildRecord, ExportRecord

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """The cost of a model.

    Attributes:
        model: Manifest id.
        weights_mib: Size of the backbone's weights in fp32, MiB.
        export_seconds: Duration of the longest export, golden features included.
        peak_mib: Highest peak memory of its jobs, MiB.
        engines: Label to the duration of the build in seconds and the size in MiB.
    """

    model: str
    weights_mib: float
    export_seconds: float
    peak_mib: float
    engines: dict[str, tuple[float, float]]


def model_costs(repository: Repository) -> Iterator[ModelCost]:
    """Yields the cost of every model in the index."""
    index = repository.index()
    for row in index.models if index else ():
        records = repository.records(row.model)
        exports = {record.export_key: _export(repository, record) for record in records}
        jobs = [*(export.cost for export in exports.values()), *(r.cost for r in records)]
        if not jobs:
            continue
        parameters = max(export.parameters for export in exports.values())
        yield ModelCost(
            model=row.model,
            weights_mib=4 * parameters / _MIB,
            export_seconds=max(export.cost.seconds or 0.0 for export in exports.values()),
            peak_mib=max(job.peak_memory or 0 for job in jobs) / _MIB,
            engines={
                "+".join(r.targets): (r.cost.seconds or 0.0, r.engine.size / _MIB) for r in records
            },
        )


def to_markdown(repository: Repository) -> str:
    """Returns a table, one row per engine."""
    lines = [
        "| model | weights MiB | export s | peak MiB | engine | build s | size MiB |",
        "| --- | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for cost in model_costs(repository):
        head = f"| {cost.model} | {cost.weights_mib:.0f} | {cost.export_seconds:.1f} "
        head += f"| {cost.peak_mib:.0f} "
        for label, (seconds, size) in sorted(cost.engines.items()):
            lines.append(f"{head}| {label} | {seconds:.1f} | {size:.1f} |")
            head = "| | | | "
    return "\n".join(lines)


def _export(repository: Repository, record: BuildRecord) -> ExportRecord:
    export = repository.export(record.inputs.model, record.export_key)
    assert export is not None  # a record is written after its export
    return export
