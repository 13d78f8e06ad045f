"""A first export of a drafted manifest, with seeded weights, in a temporary folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from builders import weights
from builders.executors.base import Executor
from builders.export.draft import Draft, as_exported
from builders.jobs.messages import ExportedFile, ExportJob, ExportOutput
from builders.jobs.progress import Report
from builders.photos.calibration import shipped
from builders.recipe.export_form import DIALECTS, Form, export_inputs
from builders.weights.mode import WeightsMode
from zoo.schema.precisions import Precision
from zoo.util.errors import ExportError, JobError

_DIALECT = next(iter(DIALECTS))  # that of most runtimes


def try_export(draft: Draft, executor: Executor, report: Report) -> tuple[Draft, ExportedFile]:
    """Exports a draft's model to fp32 as ``zoo-farm zoo`` does, and keeps nothing of it.

    Args:
        draft: The draft.
        executor: Runs the job.
        report: Takes its events.

    Returns:
        The draft, with the batch ranges that the exported ONNX needs, and what the export found.

    Raises:
        ExportError: It can't be exported; the message is the job's.
    """
    manifest, images = draft.manifest, shipped()
    identity = weights.identify(manifest, WeightsMode.SEEDED)
    form = Form(dialect=_DIALECT, precision=Precision.FP32)
    with tempfile.TemporaryDirectory(prefix="zoo-farm-add-") as temporary:
        folder = Path(temporary)
        job = ExportJob(
            manifest=manifest,
            manifest_dir=temporary,
            weights=identity,
            inputs={form.name: export_inputs(manifest, identity, form, images.name)},
            calibration=images,
            store=str(folder / "store"),
        )
        (folder / "job").mkdir()
        try:
            outcome = executor.run(job, folder / "job", report)
        except JobError as error:
            raise ExportError(
                f"{manifest.timm_name} can't be exported: {error.message}", hint=error.hint
            ) from error
    assert isinstance(outcome.result, ExportOutput)
    (exported,) = outcome.result.exports
    return as_exported(draft, exported.largest_tensor, exported.parameters), exported
