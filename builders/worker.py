"""The unit of work: ``worker job.json -> output directory``, the same under every executor.

Run as ``python -m builders.worker job.json output/``. Events go to standard output, one JSON
object a line; everything that libraries print goes to ``output/log.txt``; the outcome, a failure
included, is ``output/result.json``. A build needs numpy, Polygraphy and the runtime; only an
export needs torch.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from builders.backends import get_backend
from builders.job import (
    BuildJob,
    BuildOutput,
    DisabledExport,
    ExportedFile,
    ExportJob,
    ExportOutput,
    Failure,
    Prove,
    VerifyJob,
    parse_job,
)
from builders.progress import Event, Report, event_writer
from zoo.errors import JobError, PrecisionError, ZooError
from zoo.key import BuildInputs, ExportInputs
from zoo.machine import describe_machine
from zoo.preprocess import normalise
from zoo.record import Advice, Blob
from zoo.repository import Repository
from zoo.runtime import open_session
from zoo.stores import open_store
from zoo.target import Toolchain
from zoo.tolerance import Tolerance

Step = Callable[[int, str], None]
"""Takes how many steps of a stage are done, and what comes next."""


class Workspace:
    """Blobs of a store as local files, and the folder for outputs.

    Args:
        store: The store's URL.
        output: Folder for outputs.
    """

    def __init__(self, store: str, output: Path) -> None:
        self._repository = Repository(open_store(store))
        self.output = output

    def blob(self, blob: Blob) -> Path:
        """Returns a blob as a file: in place when the store is local, else fetched and checked."""
        path = self._repository.blob_path(blob)
        if path is None:
            path = self.output / "inputs" / blob.sha256
            path.parent.mkdir(exist_ok=True)
            self._repository.fetch_blob(blob, path)
        return path

    def timing_cache(self, device: str, toolchain: Toolchain) -> Path | None:
        """Returns the timing cache of a GPU and a toolchain as a file, None without one."""
        record = self._repository.timing_cache(device, toolchain)
        return self.blob(record.cache) if record else None


def run_export(job: ExportJob, workspace: Workspace, report: Report) -> ExportOutput:
    """Makes the ONNX files of a model and, with the fp32 one, its golden."""
    import onnx

    from builders import export, precision

    started, output = time.perf_counter(), workspace.output
    steps = 4 + len(job.inputs)
    golden_file = state_file = None

    def step(done: int, note: str) -> None:
        report(Event(stage="export", done=done, total=steps, note=note))

    if job.fp32 is None:
        state_file = _export_fp32(job, workspace, step)
        golden_file = "golden.npz"
        fp32_path, golden_path = output / "fp32.onnx", output / golden_file
    else:
        fp32_path, golden_path = workspace.blob(job.fp32.onnx), workspace.blob(job.fp32.golden)
    exports, disabled = [], []
    for number, (name, inputs) in enumerate(job.inputs.items()):
        path, advice = output / f"{name}.onnx", None
        step(4 + number, f"{name} ONNX")
        if inputs.precision != "fp32":
            try:
                advice = _lower(
                    job, inputs, fp32_path, path, partial(_note, step, 4 + number, name)
                )
            except PrecisionError as error:
                disabled.append(
                    DisabledExport(
                        inputs=inputs,
                        reason=error.message,
                        calibration=job.calibration.describe(),
                        advice=Advice.model_validate(error.advice),
                    )
                )
                continue
        model = onnx.load(path)
        check = {"graph": precision.describe(model)}
        count, largest = export.parameter_count(model), export.largest_tensor(model)
        del model
        check |= _check(job, inputs, path, golden_path)
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
        cost=_cost(started),
    )


def _note(step: Step, done: int, name: str, note: str) -> None:
    step(done, f"{name}: {note}")


def _lower(
    job: ExportJob, inputs: ExportInputs, fp32: Path, path: Path, report: Callable[[str], None]
) -> Advice:
    """Writes an ONNX below fp32, made from the fp32 one and the calibration images."""
    import onnx

    from builders import export, precision

    assert inputs.lowering is not None
    preprocess = job.manifest.preprocess.plain
    pixels, judged = job.calibration.pixels(preprocess)
    images = normalise(pixels, preprocess)
    model, advice = precision.lower(
        onnx.load(fp32),
        inputs.precision,
        precision.Images(all=images, judged=images[judged]),
        Tolerance.model_validate(inputs.lowering.tolerance),
        placing=inputs.lowering.placing,
        rest=inputs.lowering.rest,
        low_images=inputs.lowering.half_images,
        report=report,
    )
    export.save_onnx(model, path)
    return advice


def _check(job: ExportJob, inputs: ExportInputs, path: Path, golden: Path) -> dict[str, Any]:
    """Runs an ONNX and compares it with PyTorch, before any engine is built of it."""
    import onnx

    from builders import export, precision

    least = job.manifest.kept_by(inputs.precision).cosine
    if inputs.precision == "fp32":
        return export.check_export(path, golden, job.manifest, least, (1, 3))
    model = precision.rounded_in_fp32(onnx.load(path))
    return export.check_export(model, golden, job.manifest, least, (2,))


def _export_fp32(
    job: ExportJob, workspace: Workspace, step: Callable[[int, str], None]
) -> str | None:
    """Writes ``fp32.onnx`` and ``golden.npz``; returns the file of a newly seeded state."""
    from builders import backbone, export, photos, weights
    from builders.weights import seeded, state

    manifest, output = job.manifest, workspace.output
    dialect = job.inputs["fp32"].dialect
    state_file = None
    step(0, "weights")
    if not job.weights.seeded:
        path = weights.fetch(manifest, Path(job.manifest_dir))
    elif job.state is not None:
        path = workspace.blob(job.state)
    else:
        from safetensors.torch import save_file

        state_file = "state.safetensors"
        path = output / state_file
        pixels = photos.statistics_photos(manifest.preprocess)
        images = normalise(pixels, manifest.preprocess.plain)
        save_file(seeded.make_state(lambda: backbone.create(manifest), images), path)
    step(1, "backbone")
    model = backbone.create(manifest)
    if job.weights.seeded:
        state.load_seeded(model, manifest, path)
    else:
        state.load_state(model, manifest, path)
    cut = backbone.Backbone(model, manifest.backbone)
    backbone.check_width(manifest.id, cut, manifest.preprocess.input_size)
    step(2, "golden features")
    export.write_golden(cut, manifest, output / "golden.npz")
    step(3, "fp32 ONNX")
    export.write_onnx(cut, manifest.preprocess.input_size, output / "fp32.onnx", dialect)
    return state_file


def run_build(job: BuildJob, workspace: Workspace, report: Report) -> BuildOutput:
    """Builds an engine and, where this machine can run it, proves it."""
    started = time.perf_counter()
    inputs, engine = job.inputs, workspace.output / "engine"
    report(Event(stage="build", done=0, total=1, note=str(inputs.toolchain.line)))
    backend = get_backend(inputs.toolchain.kind)
    machine = describe_machine()
    device = machine.get("gpu", {}).get("name")
    facts = backend.build(
        workspace.blob(job.onnx),
        inputs,
        engine,
        parameters=job.parameters,
        timing_cache=workspace.timing_cache(device, inputs.toolchain) if device else None,
    )
    report(Event(stage="build", done=1, total=1))
    built = BuildOutput(
        engine=engine.name,
        files={name: path.name for name, path in facts.files.items()},
        timing_cache=facts.timing_cache.name if facts.timing_cache else None,
        facts=facts.values,
        precision_proven=facts.precision_proven,
        verification=None,
        benchmark=(),
        machine=machine,
        cost=_cost(started),
    )
    if job.prove is None:
        return built
    return _prove(built, job.prove, engine, inputs, workspace, report)


def run_verify(job: VerifyJob, workspace: Workspace, report: Report) -> BuildOutput:
    """Proves an engine that is built."""
    record = job.record
    nothing_built = BuildOutput(
        engine=None,
        facts=record.facts,
        precision_proven=record.precision_status == "proven",
        verification=None,
        benchmark=(),
        machine=describe_machine(),
        cost=record.cost,
    )
    engine = workspace.blob(record.engine)
    return _prove(nothing_built, job.prove, engine, record.inputs, workspace, report)


def _prove(
    output: BuildOutput,
    prove: Prove,
    engine: Path,
    inputs: BuildInputs,
    workspace: Workspace,
    report: Report,
) -> BuildOutput:
    from builders.benchmark import benchmark
    from builders.verify import verify

    started = time.perf_counter()
    with open_session(engine, inputs) as session:
        verification = verify(
            session,
            workspace.blob(prove.golden),
            prove.preprocess,
            prove.tolerance,
            prove.batches,
            report,
        )
        rows = benchmark(session, prove.benchmark, report) if verification.passed else ()
    proof = _cost(started)
    cost = {**output.cost, "peak_memory": proof["peak_memory"], "proof_seconds": proof["seconds"]}
    return output.model_copy(update={"verification": verification, "benchmark": rows, "cost": cost})


def _cost(started: float) -> dict[str, Any]:
    """Returns seconds since ``started`` and this process's peak memory so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": round(time.perf_counter() - started, 2), "peak_memory": peak}


def run_job(text: str, output: Path, report: Report) -> BaseModel:
    """Runs a job.

    Args:
        text: The job, as JSON.
        output: Folder for outputs; it exists.
        report: Where progress goes.

    Returns:
        The result; :class:`~builders.job.Failure` where the job raised.
    """
    try:
        job = parse_job.validate_json(text)
    except ValidationError as error:
        return Failure(error="JobError", message=f"not a job: {error}", hint=None)
    try:
        workspace = Workspace(job.store, output)
        if isinstance(job, ExportJob):
            return run_export(job, workspace, report)
        if isinstance(job, BuildJob):
            return run_build(job, workspace, report)
        return run_verify(job, workspace, report)
    except ZooError as error:
        traceback.print_exc()
        hint = error.hint or _last_complaint(output / "log.txt")
        return Failure(error=type(error).__name__, message=error.message, hint=hint)
    except Exception as error:  # the rim of the process: whatever it was goes into the result
        traceback.print_exc()
        name = type(error).__name__
        return Failure(error=name, message=f"{name}: {error}", hint="the log has the traceback")


def _last_complaint(log: Path) -> str | None:
    """Returns the last error that a native library logged: it gives reasons nowhere else."""
    if not log.is_file():
        return None
    lines = log.read_text(errors="replace").splitlines()
    complaints = [line for line in lines if line.startswith("[E]")]
    return complaints[-1][4:500] if complaints else None


def _end_with(parent: int) -> None:
    """Ends this process when its parent has gone: nobody would take the result."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def _streams(log: Path) -> Iterator[Report]:
    """Keeps standard output for events and sends all else to the log, native code included."""
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(os.dup(1), "w") as output, os.fdopen(os.dup(2), "w") as errors:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        try:
            yield event_writer(output)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)


def main(arguments: list[str]) -> int:
    """Runs ``job.json`` into an output directory; the status is 0 when it succeeded."""
    if len(arguments) != 2:
        print("usage: python -m builders.worker job.json output/", file=sys.stderr)
        return 2
    job, output = Path(arguments[0]), Path(arguments[1])
    output.mkdir(parents=True, exist_ok=True)
    try:
        text = job.read_text(encoding="utf-8")
    except OSError as error:
        print(JobError(f"{job}: can't be read: {error.strerror}"), file=sys.stderr)
        return JobError.exit_code
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with _streams(output / "log.txt") as report:
        result = run_job(text, output, report)
    partial = output / "result.json.part"
    partial.write_text(result.model_dump_json(indent=1))
    partial.replace(output / "result.json")
    return JobError.exit_code if isinstance(result, Failure) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
