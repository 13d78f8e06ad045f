"""Times published CPU engines against eager PyTorch on the same machine, in one run.

The two run alternately, because latencies are only comparable within one run on one machine. GPU
engines are compared with PyTorch in :mod:`builders.measure.torch_speed`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from builders import weights
from builders.export import backbone
from builders.verify.in_turns import Row, compared, row_of
from builders.weights import state
from zoo.client.host import describe_machine
from zoo.repository.repository import Repository
from zoo.runtime import open_session
from zoo.schema.manifest import Manifest
from zoo.schema.measurements import ComparedBody
from zoo.schema.records import BuildRecord, ExportRecord
from zoo.util.errors import RepositoryError


@dataclass(frozen=True, kw_only=True)
class EngineRow:
    """A row about a published engine.

    Attributes:
        model: Manifest id.
        precision: The engine's precision.
        engine: Digest of the engine.
        times: The row.
    """

    model: str
    precision: str
    engine: str
    times: Row


def compare_engines(
    repository: Repository, manifest: Manifest, manifest_dir: Path
) -> list[EngineRow]:
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
) -> list[EngineRow]:
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
            reference = partial(model, torch.from_numpy(images))
            rows.append(
                EngineRow(
                    model=manifest.id,
                    precision=record.inputs.precision,
                    engine=record.engine.sha256,
                    times=row_of(size, partial(session.features, images), reference),
                )
            )
    return rows


def summary(rows: Iterable[EngineRow]) -> ComparedBody:
    """Returns the rows of one engine as its record states them, without those that are noise."""
    import torch

    how = f"torch {torch.__version__}, fp32, eager, in turns with the engine"
    return compared((row.times for row in rows), how)


def to_markdown(rows: Iterable[EngineRow]) -> str:
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


def _markdown_row(of_engine: EngineRow) -> str:
    row = of_engine.times
    start = f"| {of_engine.model} | {of_engine.precision} | {row.batch} |"
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
