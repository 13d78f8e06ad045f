"""The jobs that need torch: exports, and PyTorch's features of labelled photos."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from builders.export.fp32 import GOLDEN, ONNX, Fp32Export, Step, export_fp32
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
from zoo.schema.measurements import OnnxCheck
from zoo.schema.precisions import is_lowered
from zoo.schema.records import Advice
from zoo.util.errors import PrecisionError

_AT_ONCE = 4  # batch size in PyTorch


def run_export(job: ExportJob, workspace: Workspace, report: Report) -> ExportOutput:
    """Exports a model's ONNX files and, together with fp32, its golden features."""
    import onnx

    from builders import precision
    from builders.export import onnx as export
    from builders.export.sizes import largest_tensor

    started, output = time.perf_counter(), workspace.output
    steps = 4 + len(job.inputs)
    made: Fp32Export | None = None

    def step(done: int, note: str) -> None:
        report(Event(stage="export", done=done, total=steps, note=note))

    if job.fp32 is None:
        made = export_fp32(job, workspace, step)
        fp32_path, golden_path = output / ONNX, output / GOLDEN
    else:
        fp32_path, golden_path = workspace.blob(job.fp32.onnx), workspace.blob(job.fp32.golden)
    exports, disabled = [], []
    for number, (name, inputs) in enumerate(job.inputs.items()):
        path, advice = output / f"{name}.onnx", None
        step(4 + number, f"{name} ONNX")
        if not is_lowered(inputs.precision):
            assert made is not None
            check = made.check
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
        golden=GOLDEN if made else None,
        state=made.state if made else None,
        exports=tuple(exports),
        disabled=tuple(disabled),
        notes=made.notes if made else (),
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
    from builders.precision.onnx_session import open_onnx

    least = job.manifest.kept_by(inputs.precision).cosine
    run = open_onnx(precision.rounded_in_fp32(onnx.load(path)))
    numbers = export.compare_with_golden(run, golden, job.manifest, (2,))
    worst = numbers.worst_cosine
    if not worst >= least:  # NaN misses too
        raise PrecisionError(
            f"the ONNX meets its tolerance on calibration images, but on two golden photos its "
            f"worst cosine is {worst:.6f}, at least {least} is needed",
            advice.model_dump(mode="json"),
            stricter_may_pass=True,
        )
    edges = export.check_edges(run, golden, job.manifest, fp32)
    for miss in edge_misses(edges):
        # Not refused here: the engine is judged by its own features, when it is verified.
        print(f"{job.manifest.id} in {inputs.precision}: {miss}")  # to the log
    return numbers.but(edges=edges)


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
