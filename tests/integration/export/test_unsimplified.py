"""What the exporter's optimiser breaks is exported again without it: through a whole export job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from support.goldens import raises_golden
from support.models import TINY
from support.paths import MANIFESTS
from torch import nn

from builders import weights
from builders.export import backbone
from builders.export import onnx as export
from builders.export.run import run_export
from builders.jobs.messages import ExportJob, ExportOutput
from builders.jobs.progress import silent
from builders.jobs.workspace import Workspace
from builders.photos.calibration import shipped
from builders.photos.edge import edge_batch
from builders.precision.onnx_session import open_onnx
from builders.recipe.export_form import Form, export_inputs
from builders.weights.mode import WeightsMode
from zoo.schema.manifest import Manifest, load_manifest
from zoo.schema.precisions import Precision
from zoo.util.errors import ExportError

Change = Callable[[torch.Tensor], torch.Tensor]
"""What a network does with a batch before its first layer."""


def guarded(images: torch.Tensor) -> torch.Tensor:
    """Divides by a length that an addition keeps from 0; the optimiser removes the addition."""
    return images / (images.pow(2).sum(1, keepdim=True).sqrt() + 1e-9)


def guarded_twice(images: torch.Tensor) -> torch.Tensor:
    return guarded(guarded(images) * 2)


def with_a_large_guard(images: torch.Tensor) -> torch.Tensor:
    """An addition that the optimiser leaves alone."""
    return images / (images.pow(2).sum(1, keepdim=True).sqrt() + 1e-3)


def unguarded(images: torch.Tensor) -> torch.Tensor:
    """PyTorch itself has NaN on a picture of zeros, which is not the exporter's fault."""
    return images / images.pow(2).sum(1, keepdim=True).sqrt()


def unchanged(images: torch.Tensor) -> torch.Tensor:
    return images


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each export of a test was optimised, in order."""
    real, made = export.write_onnx, list[bool]()

    def write(*arguments: Any, optimize: bool = True) -> tuple[str, ...]:
        made.append(optimize)
        return real(*arguments, optimize=optimize)

    monkeypatch.setattr(export, "write_onnx", write)
    return made


def job_of(
    manifest: Manifest, change: Change, monkeypatch: pytest.MonkeyPatch, store: Path, dialect: str
) -> ExportJob:
    """An export of the smallest model with other arithmetic in front of it."""
    real = backbone.create

    def create(of: Manifest) -> nn.Module:
        model: Any = real(of)
        inner = model.forward_features
        model.forward_features = lambda images: inner(change(images))
        return model

    monkeypatch.setattr(backbone, "create", create)
    identity = weights.identify(manifest, WeightsMode.SEEDED)
    calibration = shipped()
    form = Form(dialect=dialect, precision=Precision.FP32)
    return ExportJob(
        manifest=manifest, manifest_dir=str(MANIFESTS), weights=identity, calibration=calibration,
        inputs={"fp32": export_inputs(manifest, identity, form, calibration.name)},
        store=str(store),
    )  # fmt: skip


def run(
    change: Change, monkeypatch: pytest.MonkeyPatch, folder: Path, dialect: str = "dynamo-20"
) -> tuple[ExportOutput, Path]:
    job = job_of(load_manifest(TINY), change, monkeypatch, folder / "store", dialect)
    output = folder / "output"
    output.mkdir()
    return run_export(job, Workspace(job.store, output), silent), output


@pytest.mark.parametrize(
    ("change", "optimised"),
    [
        (guarded, [True, False]),
        (guarded_twice, [True, False]),
        (with_a_large_guard, [True]),
        (unguarded, [True]),
        (unchanged, [True]),
    ],
)
def test_an_export_is_repeated_where_the_optimiser_breaks_it(
    change: Change,
    optimised: list[bool],
    exports: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    result, output = run(change, monkeypatch, tmp_path)
    assert exports == optimised
    (made,) = result.exports
    assert made.check.worst_cosine > 0.9999
    assert all(edge.finite for edge in made.check.edges.values())
    graph = onnx.load(output / made.onnx)
    onnx.checker.check_model(graph, full_check=True)
    assert made.largest_tensor > 0  # of the types that an unsimplified export lacks
    manifest = load_manifest(TINY)
    pictures = edge_batch(manifest.preprocess.plain, manifest.preprocess.input_size)
    features = open_onnx(output / made.onnx)(pictures)
    with np.load(output / "golden.npz") as arrays:
        finite = np.isfinite(arrays["edge_features"]).all(axis=1)
    assert np.isfinite(features[finite]).all()


def test_what_is_broken_without_the_optimiser_too_is_refused(
    exports: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A guard that is lost in any export: the error names the picture, and nothing is exported."""

    def lost(images: torch.Tensor) -> torch.Tensor:
        tiny = 0.0 if torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting() else 1e-9
        return images / (images.pow(2).sum(1, keepdim=True).sqrt() + tiny)

    with raises_golden(ExportError, "export/edges-of-both-exports"):
        run(lost, monkeypatch, tmp_path)
    assert exports == [True, False]
