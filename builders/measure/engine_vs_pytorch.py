"""Compare: published engines against PyTorch on the same machine.

CPU engines and eager PyTorch are timed in turns, in one run. On a GPU the two may need different
Pythons: there an engine's benchmark is put beside what ``torch-speed`` measured.

A speed is only worth something beside another one of the same run on the same machine.
"""

from __future__ import annotations

import json
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
from builders.weights import state
from zoo.client.host import describe_machine
from zoo.repository.repository import Repository
from zoo.runtime import open_session
from zoo.schema.index import ComparedBatch, ComparisonSummary, EngineEntry
from zoo.schema.manifest import Manifest
from zoo.schema.measurements import MachineDescription
from zoo.schema.records import BuildRecord, ExportRecord
from zoo.util.errors import RepositoryError, UsageError

_SECONDS = 1.5  # per batch size, both sides together
_LEAST_ROUNDS = 2
_REST = 0.05  # seconds between turns: thread pools keep spinning for a while after their work


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model at one batch size.

    Attributes:
        model: Manifest id.
        precision: Of the engine.
        engine: Digest of the engine.
        batch: Images at once.
        engine_ms: Median latency of the engine.
        eager_ms: Median latency of eager PyTorch.
    """

    model: str
    precision: str
    engine: str
    batch: int
    engine_ms: float
    eager_ms: float

    @property
    def ratio(self) -> float:
        """How many times as fast as PyTorch the engine is."""
        return self.eager_ms / self.engine_ms


def compare_engines(repository: Repository, manifest: Manifest, manifest_dir: Path) -> list[Row]:
    """Times a model's published CPU engines against its backbone in PyTorch.

    Args:
        repository: Where the engine is published.
        manifest: The model.
        manifest_dir: Folder of the manifest, against which local weights are resolved.

    Returns:
        A row per batch size; none when no CPU engine is published.
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
            engine_ms, eager_ms = in_turns(
                partial(session.features, images), partial(model, torch.from_numpy(images))
            )
            rows.append(
                Row(
                    model=manifest.id,
                    precision=record.inputs.precision,
                    engine=record.engine.sha256,
                    batch=size,
                    engine_ms=engine_ms,
                    eager_ms=eager_ms,
                )
            )
    return rows


def summary(rows: Iterable[Row]) -> ComparisonSummary:
    """Returns rows of one engine as its record has them."""
    import torch

    return ComparisonSummary(
        batches=tuple(
            ComparedBatch(batch=row.batch, engine_ms=row.engine_ms, pytorch_ms=row.eager_ms)
            for row in rows
        ),
        pytorch=f"torch {torch.__version__}, fp32, eager, in turns with the engine",
        machine=describe_machine(),
    )


def beside_torch_speed(entry: EngineEntry, speed: dict[str, Any]) -> ComparisonSummary | None:
    """Puts a GPU engine's benchmark beside what ``torch-speed`` measured.

    Args:
        entry: The engine.
        speed: What :func:`builders.measure.pytorch.measure` gave for its model.

    Returns:
        The comparison at the batch sizes that both have; None where the engine was not timed on
        the same kind of GPU, or is of another precision.
    """
    timed, machine = entry.benchmark, MachineDescription.model_validate(speed["machine"])
    gpu = machine.gpu_name
    if timed is None or entry.precision != speed["precision"]:
        return None
    if gpu is None or timed.machine.gpu_name != gpu:
        return None
    engine = {row.batch: row.latency_ms for row in timed.batches}
    rows = [row for row in speed["batches"] if row["batch"] in engine]
    return ComparisonSummary(
        batches=tuple(
            ComparedBatch(
                batch=row["batch"],
                engine_ms=engine[row["batch"]],
                pytorch_ms=min(row["eager_ms"], row.get("compiled_ms", row["eager_ms"])),
            )
            for row in rows
        ),
        pytorch=f"torch {speed['torch']}, {speed['precision']} channels_last, the best of eager "
        "and torch.compile, on the same kind of GPU in another process",
        machine=machine,
    )


def read_torch_speed(path: Path) -> dict[str, Any]:
    """Reads a file that ``zoo-farm torch-speed`` wrote.

    Raises:
        UsageError: It is none.
    """
    try:
        speed: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = speed["model"], speed["torch"], speed["precision"], speed["machine"], speed["batches"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: not what torch-speed writes: {error}", hint="zoo-farm torch-speed writes it"
        ) from error
    return speed


def in_turns(
    one: Callable[[], Any],
    other: Callable[[], Any],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Times two functions alternately, so that what slows the machine slows both.

    Returns:
        The median milliseconds of each.
    """
    one(), other()  # warm up
    times: tuple[list[float], list[float]] = ([], [])
    start = clock()
    while len(times[0]) < _LEAST_ROUNDS or clock() - start < _SECONDS:
        for run, found in zip((one, other), times, strict=True):
            time.sleep(_REST)
            before = clock()
            run()
            found.append(clock() - before)
    return 1e3 * float(np.median(times[0])), 1e3 * float(np.median(times[1]))


def to_markdown(rows: Iterable[Row]) -> str:
    """Returns a table with the machine above it."""
    machine = describe_machine()
    lines = [
        f"{machine.cpu}, {machine.cores} cores",
        "",
        "| model | engine | batch | engine ms | eager PyTorch ms | times as fast |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.model} | {row.precision} | {row.batch} | {row.engine_ms:.1f} | {row.eager_ms:.1f} "
        f"| {row.ratio:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def backbone_of(
    repository: Repository, manifest: Manifest, manifest_dir: Path, record: BuildRecord
) -> backbone.Backbone:
    """Returns the network in PyTorch that an engine was made from.

    Raises:
        RepositoryError: Its export or its seeded state is not here.
    """
    export: ExportRecord | None = repository.export(manifest.id, record.export_key)
    if export is None:
        raise RepositoryError(f"{manifest.id}: export {record.export_key} is gone")
    model = backbone.create(manifest)
    if export.inputs.weights.seeded:
        found = repository.state(manifest.id, export.inputs.weights.digest)
        if found is None:
            raise RepositoryError(f"{manifest.id}: the state of its seeded weights is gone")
        with tempfile.TemporaryDirectory() as scratch:
            path = repository.blobs.whole(found.state, Path(scratch))
            state.load_seeded(model, manifest, path)
    else:
        state.load_state(model, manifest, weights.fetch(manifest, manifest_dir))
    return backbone.Backbone(model, manifest.backbone)
