"""Times published CPU engines against eager PyTorch on the same machine, in one run.

The two run alternately, because latencies are only comparable within one run on one machine. GPU
engines are compared with PyTorch in :mod:`builders.measure.torch_speed`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from builders import weights
from builders.export import backbone
from builders.verify.spread import LEAST_RUNS, ForeignLoad, Spread, spread, why_too_noisy
from builders.weights import state
from zoo.client.host import describe_machine
from zoo.repository.repository import Repository
from zoo.runtime import open_session
from zoo.schema.index import ComparedBatch, ComparisonSummary
from zoo.schema.manifest import Manifest
from zoo.schema.records import BuildRecord, ExportRecord
from zoo.util.errors import RepositoryError

_SECONDS = 1.5  # per batch size, both together
_MOST_SECONDS = 20.0  # of a batch size whose runs are slow, to reach the fewest rounds that count
_REST = 0.05  # seconds between runs: thread pools keep spinning for a while after their work


@dataclass(frozen=True, kw_only=True)
class Row:
    """Latencies of an engine and of PyTorch at one batch size.

    Attributes:
        model: Manifest id.
        precision: The engine's precision.
        engine: Digest of the engine.
        batch: Images per batch.
        engine_ms: Median latency of the engine, milliseconds.
        eager_ms: Median latency of eager PyTorch, milliseconds.
        ratios: PyTorch's latency divided by the engine's in each round.
        load: Share of the cores that other processes used; None if it is not known.
    """

    model: str
    precision: str
    engine: str
    batch: int
    engine_ms: float
    eager_ms: float
    ratios: tuple[float, ...] = ()
    load: float | None = None

    @property
    def of_ratio(self) -> Spread:
        """PyTorch's latency divided by the engine's, round by round: what slows one slows both."""
        return spread(self.ratios or (self.eager_ms / self.engine_ms,))

    @property
    def noisy(self) -> str | None:
        """Why the ratio is no fact about the engine; None if it is one."""
        return why_too_noisy(self.of_ratio, self.load)


def compare_engines(repository: Repository, manifest: Manifest, manifest_dir: Path) -> list[Row]:
    """Times a model's published CPU engines against its backbone in PyTorch.

    Args:
        repository: The repository of the engines.
        manifest: The model.
        manifest_dir: Folder of the manifest, which paths of local weights are relative to.

    Returns:
        A row per engine and batch size; empty if no CPU engine is published.
    """
    import torch

    index = repository.model_index(manifest.id)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = []
    for entry in index.current if index else ():
        record = repository.record(manifest.id, entry.record)
        if record is not None and record.inputs.archs == ("cpu",):
            model = backbone_of(repository, manifest, manifest_dir, record)
            rows += _compare_engine(repository, manifest, record, model)
    return rows


def _compare_engine(
    repository: Repository, manifest: Manifest, record: BuildRecord, model: backbone.Backbone
) -> list[Row]:
    import torch

    batch = record.inputs.batch
    rows = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_session(
            repository.blobs.whole(record.engine, Path(scratch)), record.inputs
        ) as session,
        torch.inference_mode(),
    ):
        for size in sorted({batch.min, batch.opt, batch.max}):
            shape = (size, *session.input_shape)
            images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            load = ForeignLoad(time.perf_counter)
            engine, eager = in_turns(
                partial(session.features, images), partial(model, torch.from_numpy(images))
            )
            rows.append(
                Row(
                    model=manifest.id,
                    precision=record.inputs.precision,
                    engine=record.engine.sha256,
                    batch=size,
                    engine_ms=float(np.median(engine)),
                    eager_ms=float(np.median(eager)),
                    ratios=tuple(b / a for a, b in zip(engine, eager, strict=True)),
                    load=load.share(),
                )
            )
    return rows


def summary(rows: Iterable[Row]) -> ComparisonSummary:
    """Returns the rows of one engine as its record states them, without those that are noise."""
    import torch

    rows = list(rows)
    noisy = [{"batch": row.batch, "reason": row.noisy} for row in rows if row.noisy]
    stated: dict[str, object] = {"not_measured": noisy} if noisy else {}
    return ComparisonSummary.model_validate(
        {
            "batches": tuple(_compared(row) for row in rows if not row.noisy),
            "pytorch": f"torch {torch.__version__}, fp32, eager, in turns with the engine",
            "machine": describe_machine(),
            **stated,
        }
    )


def _compared(row: Row) -> ComparedBatch:
    stated = {"batch": row.batch, "engine_ms": row.engine_ms, "pytorch_ms": row.eager_ms}
    of_ratio = row.of_ratio
    return ComparedBatch.model_validate(
        {**stated, "ratio": of_ratio.median, "ratio_interval": of_ratio.interval}
    )


def in_turns(
    first: Callable[[], Any],
    second: Callable[[], Any],
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[float], None] = time.sleep,
) -> tuple[list[float], list[float]]:
    """Times two functions alternately, so that whatever slows the machine down slows both.

    Returns:
        The duration of each in each round, milliseconds: six rounds or more, unless they take
        longer than twenty seconds.
    """
    first(), second()  # warm up
    durations: tuple[list[float], list[float]] = ([], [])
    start = clock()
    while _goes_on(len(durations[0]), clock() - start):
        for run, times in zip((first, second), durations, strict=True):
            rest(_REST)
            before = clock()
            run()
            times.append(1e3 * (clock() - before))
    return durations


def _goes_on(rounds: int, seconds: float) -> bool:
    if rounds < LEAST_RUNS:
        return rounds == 0 or seconds < _MOST_SECONDS
    return seconds < _SECONDS


def to_markdown(rows: Iterable[Row]) -> str:
    """Returns a table, below a line that names the machine."""
    machine = describe_machine()
    lines = [
        f"{machine.cpu}, {machine.cores} cores",
        "",
        "| model | engine | batch | engine ms | eager PyTorch ms | times as fast | 95% |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
        *map(_markdown_row, rows),
    ]
    return "\n".join(lines)


def _markdown_row(row: Row) -> str:
    start = f"| {row.model} | {row.precision} | {row.batch} |"
    of_ratio = row.of_ratio
    if row.noisy or of_ratio.interval is None:
        return f"{start} – | – | not measured | {row.noisy} |"
    low, high = of_ratio.interval
    return (
        f"{start} {row.engine_ms:.1f} | {row.eager_ms:.1f} | {of_ratio.median:.2f} "
        f"| {low:.2f} to {high:.2f} |"
    )


def backbone_of(
    repository: Repository, manifest: Manifest, manifest_dir: Path, record: BuildRecord
) -> backbone.Backbone:
    """Returns the PyTorch network that an engine was exported from.

    Raises:
        RepositoryError: The repository lacks its export or the state of its seeded weights.
    """
    export: ExportRecord | None = repository.export(manifest.id, record.export_key)
    if export is None:
        raise RepositoryError(f"{manifest.id}: export {record.export_key} is missing")
    model = backbone.create(manifest)
    if export.inputs.weights.seeded:
        seeded = repository.state(manifest.id, export.inputs.weights.digest)
        if seeded is None:
            raise RepositoryError(f"{manifest.id}: the state of its seeded weights is missing")
        with tempfile.TemporaryDirectory() as scratch:
            path = repository.blobs.whole(seeded.state, Path(scratch))
            state.load_seeded(model, manifest, path)
    else:
        state.load_state(model, manifest, weights.fetch(manifest, manifest_dir))
    return backbone.Backbone(model, manifest.backbone)
