"""The jobs that need torch: exports, and PyTorch's features of labelled photos."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from builders.jobs.messages import (
    DisabledExport,
    ExportedFile,
    ExportJob,
    ExportOutput,
    ReferenceJob,
    ReferenceOutput,
)
from builders.jobs.progress import Event, Report
from builders.jobs.workspace import Workspace, cost_since
from builders.verify.misses import edge_misses
from zoo.inference.preprocess import normalise
from zoo.schema.floors import Tolerance
from zoo.schema.keys import ExportInputs
from zoo.schema.manifest import HubWeights
from zoo.schema.measurements import OnnxCheck
from zoo.schema.precisions import Precision, is_lowered
from zoo.schema.records import Advice
from zoo.util.errors import ExportError, PrecisionError

Step = Callable[[int, str], None]
"""Called with the number of finished steps of a stage and the name of the next one."""

_AT_ONCE = 4  # batch size in PyTorch


def run_export(job: ExportJob, workspace: Workspace, report: Report) -> ExportOutput:
    """Exports a model's ONNX files and, together with fp32, its golden features."""
    import onnx

    from builders import precision
    from builders.export import onnx as export
    from builders.export.sizes import largest_tensor

    started, output = time.perf_counter(), workspace.output
    steps = 4 + len(job.inputs)
    golden_file = state_file = None
    notes: tuple[str, ...] = ()

    def step(done: int, note: str) -> None:
        report(Event(stage="export", done=done, total=steps, note=note))

    if job.fp32 is None:
        state_file, notes = _export_fp32(job, workspace, step)
        golden_file = "golden.npz"
        fp32_path, golden_path = output / "fp32.onnx", output / golden_file
    else:
        fp32_path, golden_path = workspace.blob(job.fp32.onnx), workspace.blob(job.fp32.golden)
    exports, disabled = [], []
    for number, (name, inputs) in enumerate(job.inputs.items()):
        path, advice = output / f"{name}.onnx", None
        step(4 + number, f"{name} ONNX")
        if not is_lowered(inputs.precision):
            check = _check_fp32(job, path, golden_path)
        else:
            try:
                advice = _lower(
                    job, inputs, fp32_path, path, partial(_note, step, 4 + number, name)
                )
                check = _check_lower(job, inputs, path, golden_path, advice, fp32_path)
            except PrecisionError as error:
                disabled.append(
                    DisabledExport(
                        inputs=inputs,
                        reason="; ".join(filter(None, (error.message, job.calibration.blame))),
                        calibration=job.calibration.describe(),
                        advice=Advice.model_validate(error.advice),
                        stricter_may_pass=error.stricter_may_pass,
                    )
                )
                continue
        model = onnx.load(path)
        check = OnnxCheck.model_validate({"graph": precision.describe(model), **check.model_dump()})
        count, largest = export.parameter_count(model), largest_tensor(model)
        del model
        exports.append(
            ExportedFile(
                inputs=inputs,
                onnx=path.name,
                parameters=count,
                largest_tensor=largest,
                check=check,
                calibration=job.calibration.describe() if advice else None,
                advice=advice,
            )
        )
    step(steps, "")
    return ExportOutput(
        golden=golden_file,
        state=state_file,
        exports=tuple(exports),
        disabled=tuple(disabled),
        notes=notes,
        cost=cost_since(started),
    )


def _note(step: Step, done: int, name: str, note: str) -> None:
    step(done, f"{name}: {note}")


def _lower(
    job: ExportJob, inputs: ExportInputs, fp32: Path, path: Path, report: Callable[[str], None]
) -> Advice:
    """Writes an ONNX below fp32, derived from the fp32 ONNX and the calibration images."""
    import onnx

    from builders import precision
    from builders.export import onnx as export

    assert inputs.lowering is not None
    preprocess = job.manifest.preprocess.plain
    pixels, evaluated = job.calibration.pixels(preprocess)
    images = normalise(pixels, preprocess)
    model, advice = precision.lower(
        onnx.load(fp32),
        inputs.precision,
        precision.Images(all=images, evaluated=images[evaluated]),
        Tolerance.model_validate(inputs.lowering.tolerance),
        placing=inputs.lowering.placing,
        rest=inputs.lowering.rest,
        low_images=inputs.lowering.half_images,
        safety=inputs.lowering.safety,
        report=report,
    )
    export.save_onnx(model, path)
    return advice


def _check_fp32(job: ExportJob, path: Path, golden: Path) -> OnnxCheck:
    """Runs the fp32 ONNX and compares it with PyTorch, before any engine is built of it.

    Raises:
        ExportError: Its features differ too much from PyTorch's.
    """
    from builders.export import onnx as export

    least = job.manifest.kept_by(Precision.FP32).cosine
    numbers = export.compare_with_golden(path, golden, job.manifest, (1, 3))
    if not numbers.worst_cosine >= least:  # NaN misses too
        raise ExportError(
            f"{job.manifest.id}: features of the exported ONNX differ from PyTorch's: worst cosine "
            f"{numbers.worst_cosine:.6f}, at least {least} is needed"
        )
    edges = export.check_edges(path, golden, job.manifest)
    if misses := edge_misses(edges):
        raise ExportError(
            f"{job.manifest.id}: of the exported ONNX {misses[0]}, of PyTorch it does not",
            hint="the network divides by what is 0 on such a picture; a larger epsilon in the "
            "network's own code mends it",
        )
    return numbers.but(edges=edges)


def _check_lower(
    job: ExportJob, inputs: ExportInputs, path: Path, golden: Path, advice: Advice, fp32: Path
) -> OnnxCheck:
    """Runs an ONNX below fp32 and compares it with PyTorch, before any engine is built of it.

    Raises:
        PrecisionError: It differs too much. This does not affect the model's other precisions.
    """
    import onnx

    from builders import precision
    from builders.export import onnx as export

    least = job.manifest.kept_by(inputs.precision).cosine
    model = precision.rounded_in_fp32(onnx.load(path))
    numbers = export.compare_with_golden(model, golden, job.manifest, (2,))
    worst = numbers.worst_cosine
    if not worst >= least:  # NaN misses too
        raise PrecisionError(
            f"the ONNX meets its tolerance on calibration images, but on two golden photos its "
            f"worst cosine is {worst:.6f}, at least {least} is needed",
            advice.model_dump(mode="json"),
            stricter_may_pass=True,
        )
    edges = export.check_edges(model, golden, job.manifest, fp32)
    for miss in edge_misses(edges):
        # Not refused here: the engine is judged by its own features, when it is verified.
        print(f"{job.manifest.id} in {inputs.precision}: {miss}")  # to the log
    return numbers.but(edges=edges)


def _export_fp32(
    job: ExportJob, workspace: Workspace, step: Callable[[int, str], None]
) -> tuple[str | None, tuple[str, ...]]:
    """Writes ``fp32.onnx`` and ``golden.npz``.

    Returns:
        The file name of a newly seeded state, and what to note about weights and export.
    """
    from builders import weights
    from builders.export import backbone, cuts, timm_facts
    from builders.export import onnx as export
    from builders.photos import bundled
    from builders.weights import card, hub, seeded, state

    manifest, output = job.manifest, workspace.output
    dialect = job.inputs["fp32"].dialect
    state_file: str | None = None
    notes: tuple[str, ...] = ()
    step(0, "weights")
    timm_facts.remember()  # first: planning then blocks a manifest that differs
    timm_facts.check_manifest(manifest)
    if not job.weights.seeded:
        path = weights.fetch(manifest, Path(job.manifest_dir))
        if isinstance(manifest.weights, HubWeights):
            card.check_card(manifest, hub.commit_of(path))
    elif job.state is not None:
        path = workspace.blob(job.state)
    else:
        from safetensors.torch import save_file

        state_file = "state.safetensors"
        path = output / state_file
        pixels = bundled.statistics_photos(manifest.preprocess)
        images = normalise(pixels, manifest.preprocess.plain)
        save_file(seeded.make_state(lambda: backbone.create(manifest), images), path)
    step(1, "backbone")
    model = backbone.create(manifest)
    if job.weights.seeded:
        state.load_seeded(model, manifest, path)
    else:
        notes = state.load_state(model, manifest, path)
    cut = backbone.Backbone(model, manifest.backbone)
    cuts.check_cut(manifest, model)
    backbone.check_width(manifest.id, cut, manifest.preprocess.input_size)
    step(2, "golden features")
    golden = output / "golden.npz"
    features = export.write_golden(cut, manifest, golden)
    with np.load(golden) as arrays:
        cuts.check_golden(manifest, model, arrays["images"], features)
    step(3, "fp32 ONNX")
    size, onnx_file = manifest.preprocess.input_size, output / "fp32.onnx"
    notes += export.write_onnx(cut, size, onnx_file, dialect)
    if edge_misses(export.check_edges(onnx_file, golden, manifest)):
        # As PyTorch wrote it: simplifying has removed what matters on such a picture.
        export.write_onnx(cut, size, onnx_file, dialect, optimize=False)
    for note in notes:
        print(f"{manifest.id}: {note}")  # to the log
    return state_file, notes


def run_reference(job: ReferenceJob, workspace: Workspace, report: Report) -> ReferenceOutput:
    """Computes PyTorch's features of labelled photos, from the model's real weights."""
    import torch

    from builders import weights
    from builders.export import backbone
    from builders.weights import state

    started, manifest = time.perf_counter(), job.manifest
    plain = manifest.preprocess.plain
    pixels = job.labelled.pixels(plain)
    network = backbone.create(manifest)
    state.load_state(network, manifest, weights.fetch(manifest, Path(job.manifest_dir)))
    model = backbone.Backbone(network, manifest.backbone)
    features = []
    with torch.inference_mode():
        for first in range(0, len(pixels), _AT_ONCE):
            note = f"PyTorch, labelled photo {first + 1}"
            report(Event(stage="export", done=first, total=len(pixels), note=note))
            batch = normalise(pixels[first : first + _AT_ONCE], plain)
            features.append(model(torch.from_numpy(batch)).numpy())
    np.savez(
        workspace.output / "labelled.npz",
        images=pixels, labels=np.array(job.labelled.labels), features=np.concatenate(features),
    )  # fmt: skip
    return ReferenceOutput(file="labelled.npz", cost=cost_since(started))
