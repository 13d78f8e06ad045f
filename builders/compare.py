"""Compare: published CPU engines against eager PyTorch, in turns, in one run.

A speed is only worth something beside another one of the same run on the same machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from builders import backbone, weights
from builders.weights import state
from zoo.errors import RepositoryError
from zoo.machine import describe_machine
from zoo.manifest import Manifest
from zoo.record import BuildRecord, ExportRecord
from zoo.repository import Repository
from zoo.runtime import open_session

_SECONDS = 1.5  # per batch size, both sides together
_LEAST_ROUNDS = 2
_REST = 0.05  # seconds between turns: thread pools keep spinning for a while after their work


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model at one batch size.

    Attributes:
        model: Manifest id.
        batch: Images at once.
        engine_ms: Median latency of the engine.
        eager_ms: Median latency of eager PyTorch.
    """

    model: str
    batch: int
    engine_ms: float
    eager_ms: float

    @property
    def ratio(self) -> float:
        """How many times as fast as PyTorch the engine is."""
        return self.eager_ms / self.engine_ms


def compare_engines(repository: Repository, manifest: Manifest, manifest_dir: Path) -> list[Row]:
    """Times a model's published CPU engine against its backbone in PyTorch.

    Args:
        repository: Where the engine is published.
        manifest: The model.
        manifest_dir: Folder of the manifest, against which local weights are resolved.

    Returns:
        A row per batch size; none when no CPU engine is published.
    """
    import torch

    index = repository.model_index(manifest.id)
    for entry in index.engines if index else ():
        record = repository.record(manifest.id, entry.record)
        if record is not None and record.inputs.archs == ("cpu",):
            break
    else:
        return []
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = _backbone(repository, manifest, manifest_dir, record)
    engine = repository.blob_path(record.engine)
    assert engine is not None
    batch = record.inputs.batch
    rows = []
    with open_session(engine, record.inputs) as session, torch.inference_mode():
        for size in sorted({batch.min, batch.opt, batch.max}):
            shape = (size, *session.input_shape)
            images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            engine_ms, eager_ms = in_turns(
                partial(session.features, images), partial(model, torch.from_numpy(images))
            )
            rows.append(Row(model=manifest.id, batch=size, engine_ms=engine_ms, eager_ms=eager_ms))
    return rows


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
        f"{machine['cpu']}, {machine['cores']} cores",
        "",
        "| model | batch | engine ms | eager PyTorch ms | times as fast |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.model} | {row.batch} | {row.engine_ms:.1f} | {row.eager_ms:.1f} "
        f"| {row.ratio:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def _backbone(
    repository: Repository, manifest: Manifest, manifest_dir: Path, record: BuildRecord
) -> backbone.Backbone:
    export: ExportRecord | None = repository.export(manifest.id, record.export_key)
    if export is None:
        raise RepositoryError(f"{manifest.id}: export {record.export_key} is gone")
    model = backbone.create(manifest)
    if export.inputs.weights.seeded:
        found = repository.state(manifest.id, export.inputs.weights.digest)
        path = repository.blob_path(found.state) if found else None
        if path is None:
            raise RepositoryError(f"{manifest.id}: its seeded state is not in a local store")
        state.load_seeded(model, manifest, path)
    else:
        state.load_state(model, manifest, weights.fetch(manifest, manifest_dir))
    return backbone.Backbone(model, manifest.backbone)
