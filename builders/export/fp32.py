"""The fp32 export of a model: its network, golden features and ONNX, each checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from builders.jobs.messages import ExportJob
from builders.jobs.workspace import Workspace
from builders.verify.misses import edge_misses
from zoo.inference.preprocess import normalise
from zoo.schema.manifest import HubWeights, Manifest
from zoo.schema.measurements import EdgeNumbers, OnnxCheck
from zoo.schema.precisions import Precision
from zoo.util.errors import ExportError

if TYPE_CHECKING:
    from torch import nn

    from builders.export.onnx import Opened

Step = Callable[[int, str], None]
"""Called with the number of finished steps of a stage and the name of the next one."""

STATE, GOLDEN, ONNX = "state.safetensors", "golden.npz", "fp32.onnx"


@dataclass(frozen=True, kw_only=True)
class Fp32Export:
    """The files of an fp32 export, in the output folder.

    Attributes:
        state: File name of a newly seeded state, if there is one.
        notes: What to note about weights and export, in words.
        check: The ONNX compared with PyTorch.
    """

    state: str | None
    notes: tuple[str, ...]
    check: OnnxCheck


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    model: nn.Module
    state: str | None = None
    notes: tuple[str, ...] = ()


def export_fp32(job: ExportJob, workspace: Workspace, step: Step) -> Fp32Export:
    """Writes ``fp32.onnx`` and ``golden.npz``, and ``state.safetensors`` of new seeded weights.

    Raises:
        ManifestError: The manifest differs from what timm or the hub states.
        WeightsError: The weights can't be fetched, or do not fit.
        ExportError: The network does not have the cut, can't be exported, or its ONNX has other
            features than PyTorch.
    """
    from builders.export import backbone, cuts, fusion, timm_facts
    from builders.export import onnx as export

    manifest, output = job.manifest, workspace.output
    step(0, "weights")
    timm_facts.remember()  # first: planning then blocks a manifest that differs
    timm_facts.check_manifest(manifest)
    loaded = _load(job, workspace, step)
    model, notes = loaded.model, loaded.notes
    network = backbone.Backbone(model, manifest.backbone)
    golden = output / GOLDEN
    with cuts.remembering(model):
        expected = cuts.check_cut(manifest, model)
        backbone.check_width(manifest.id, network, cuts.first_photos(manifest))
        if loaded.state is not None:
            notes += _check_branches(manifest, network)
        step(2, "golden features")
        features = export.write_golden(network, manifest, golden)
    cuts.check_golden(manifest, expected, features)
    with np.load(golden) as arrays:
        fused = fusion.fuse(manifest, network, arrays["images"], features)
    if fused is not None:
        network = fused.backbone
    step(3, "fp32 ONNX")
    check, exported = _write_onnx(network, manifest, output, job.inputs["fp32"].dialect)
    notes += exported
    if fused is not None:
        check = check.but(fusion=fused.check)
    for note in notes:
        print(f"{manifest.id}: {note}")  # to the log
    return Fp32Export(state=loaded.state, notes=notes, check=check)


def _load(job: ExportJob, workspace: Workspace, step: Step) -> _Loaded:
    """Returns the model's network with its weights."""
    from builders import weights
    from builders.export import backbone
    from builders.weights import card, hub, state

    manifest = job.manifest
    if job.weights.seeded and job.state is None:
        loaded = _seed(manifest, workspace.output)
        step(1, "backbone")
        return loaded
    if job.weights.seeded:
        assert job.state is not None
        path = workspace.blob(job.state)
    else:
        path = weights.fetch(manifest, Path(job.manifest_dir))
        if isinstance(manifest.weights, HubWeights):
            card.check_card(manifest, hub.commit_of(path))
    step(1, "backbone")
    model = backbone.create(manifest)
    if job.weights.seeded:
        state.load_seeded(model, manifest, path)
        return _Loaded(model=model)
    return _Loaded(model=model, notes=state.load_state(model, manifest, path))


def _seed(manifest: Manifest, output: Path) -> _Loaded:
    """Seeds a network and writes its state."""
    from safetensors.torch import save_file

    from builders.export import backbone
    from builders.photos import bundled
    from builders.weights import seeded

    pixels = bundled.statistics_photos(manifest.preprocess)
    images = normalise(pixels, manifest.preprocess.plain)
    model = seeded.make_network(lambda: backbone.create(manifest), images)
    save_file(seeded.state_of(model), output / STATE)
    return _Loaded(model=model, state=STATE)


def _check_branches(manifest: Manifest, network: nn.Module) -> tuple[str, ...]:
    """Checks that every residual branch of a newly seeded network matters; returns a note."""
    import torch

    from builders.export import branches
    from builders.export.backbone import Backbone
    from builders.photos import bundled

    assert isinstance(network, Backbone)
    pixels = bundled.golden_photos(manifest.preprocess)[:1]
    image = torch.from_numpy(normalise(pixels, manifest.preprocess.plain))
    note = branches.check_alive(manifest.id, network, image)
    return () if note is None else (note,)


def _write_onnx(
    network: nn.Module, manifest: Manifest, output: Path, dialect: str
) -> tuple[OnnxCheck, tuple[str, ...]]:
    """Writes the ONNX and compares it with PyTorch, before any engine is built of it.

    Returns:
        The comparison, and what the export needed, in words.
    """
    from builders.export import onnx as export
    from builders.precision.onnx_session import open_onnx

    size, path, golden = manifest.preprocess.input_size, output / ONNX, output / GOLDEN
    notes = export.write_onnx(network, size, path, dialect)
    run = open_onnx(path, rounds=False)
    edges = export.check_edges(run, golden, manifest)
    if edge_misses(edges):
        # As PyTorch wrote it: simplifying has removed what matters on such a picture.
        export.write_onnx(network, size, path, dialect, optimize=False)
        run = open_onnx(path, rounds=False)
        edges = export.check_edges(run, golden, manifest)
    return _compare(manifest, run, golden, edges), notes


def _compare(
    manifest: Manifest, run: Opened, golden: Path, edges: dict[str, EdgeNumbers]
) -> OnnxCheck:
    """Compares an opened fp32 ONNX with PyTorch.

    Raises:
        ExportError: Its features differ too much from PyTorch's.
    """
    from builders.export import onnx as export

    numbers = export.compare_with_golden(run, golden, manifest, (1, 3))
    least = manifest.kept_by(Precision.FP32).cosine
    if not numbers.worst_cosine >= least:  # NaN misses too
        raise ExportError(
            f"{manifest.id}: features of the exported ONNX differ from PyTorch's: worst cosine "
            f"{numbers.worst_cosine:.6f}, at least {least} is needed"
        )
    if misses := edge_misses(edges):
        raise ExportError(
            f"{manifest.id}: of the exported ONNX {misses[0]}, of PyTorch it does not",
            hint="the network divides by what is 0 on such a picture; a larger epsilon in the "
            "network's own code mends it",
        )
    return numbers.but(edges=edges)
