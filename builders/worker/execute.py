"""Executes one job, in the same way under every executor.

Run as ``python -m builders.worker job.json output/``. Events go to standard output, one JSON
object per line; all output of libraries goes to ``output/log.txt``; the result, of success or
failure, is ``output/result.json``. A build needs numpy, Polygraphy and the runtime; only an
export needs torch.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ValidationError
from typing_extensions import assert_never

from builders.backends import get_backend
from builders.export.run import run_export, run_reference
from builders.jobs.messages import (
    AnyJob,
    BuildJob,
    BuildOutput,
    ExportJob,
    Failure,
    ReferenceJob,
    VerificationSpec,
    VerifyJob,
    parse_job,
)
from builders.jobs.output_files import RESULT, VERIFIED
from builders.jobs.progress import Event, Report, event_writer
from builders.jobs.workspace import Workspace, cost_since
from zoo.client.host import describe_machine
from zoo.runtime import Session, open_session
from zoo.schema.keys import BuildInputs
from zoo.schema.measurements import BatchTimes
from zoo.schema.records import PrecisionStatus
from zoo.util.causes import cause_of
from zoo.util.errors import JobError, ZooError
from zoo.util.files import write_whole
from zoo.util.loading import read_text

KEEP_NOISE = "ZOO_FARM_KEEP_NOISE"
"""Environment variable that publishes times of a busy machine: the farm's tests run on one.

Such times are rough, and are taken in less time.
"""

APART = "ZOO_FARM_SPEED_APART"
"""Environment variable: the speed of engines is measured by another process, afterwards.

What is known of an engine that passed is then left in :data:`~builders.jobs.output_files.VERIFIED`.
"""

Run = Callable[[str, Path, Report], BaseModel]
"""The signature of :func:`run_job`."""

_ROUGH_SECONDS = 0.1  # per batch size

LABELLED = "labelled.npy"
"""Name of the file with an engine's features of labelled photos."""


def run_build(job: BuildJob, workspace: Workspace, report: Report) -> BuildOutput:
    """Builds an engine and verifies it if this machine can run it."""
    started = time.perf_counter()
    inputs, engine = job.inputs, workspace.output / "engine"
    report(Event(stage="build", done=0, total=1, note=str(inputs.toolchain.line)))
    backend = get_backend(inputs.toolchain.kind)
    machine = describe_machine()
    device = machine.gpu_name
    facts = backend.build(
        workspace.blob(job.onnx),
        inputs,
        engine,
        parameters=job.parameters,
        timing_cache=workspace.timing_cache(device, inputs),
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
        cost=cost_since(started),
    )
    if job.verification is None:
        return built
    return _verify_and_measure(built, job.verification, engine, inputs, workspace, report)


def run_verify(job: VerifyJob, workspace: Workspace, report: Report) -> BuildOutput:
    """Verifies an existing engine."""
    record = job.record
    nothing_built = BuildOutput(
        engine=None,
        facts=record.facts,
        precision_proven=record.precision_status == PrecisionStatus.PROVEN,
        verification=None,
        benchmark=(),
        machine=describe_machine(),
        cost=record.cost,
    )
    engine = workspace.blob(record.engine)
    return _verify_and_measure(
        nothing_built, job.verification, engine, record.inputs, workspace, report
    )


def _verify_and_measure(
    output: BuildOutput,
    spec: VerificationSpec,
    engine: Path,
    inputs: BuildInputs,
    workspace: Workspace,
    report: Report,
) -> BuildOutput:
    from builders.verify.compare import labelled_features, verify
    from builders.worker import reference

    started = time.perf_counter()
    with open_session(engine, inputs) as session:
        verification = verify(
            session,
            workspace.blob(spec.golden),
            spec.preprocess,
            spec.tolerance,
            spec.batches,
            report,
        )
        if spec.labelled is not None and verification.passed:
            labelled_features(session, spec, workspace.output / LABELLED, report)
            verification = verification.model_copy(update={"labelled": LABELLED})
        is_timed = verification.passed and not os.environ.get(APART)
        rows = timed(session, spec, report) if is_timed else ()
        peak_memory = cost_since(started).peak_memory  # without PyTorch
        comparison, not_compared = (
            reference.measure(session, spec, rows, report, keep_noise=keeps_noise())
            if is_timed
            else (None, None)
        )
    seconds = cost_since(started).seconds
    cost = output.cost.but(peak_memory=peak_memory, proof_seconds=seconds)
    return output.model_copy(
        update={
            "verification": verification,
            "benchmark": rows,
            "comparison": comparison,
            "not_compared": not_compared,
            "cost": cost,
        }
    )


def timed(session: Session, spec: VerificationSpec, report: Report) -> tuple[BatchTimes, ...]:
    """Returns an engine's times at each batch size."""
    from builders.verify.benchmark import SECONDS, benchmark

    keep_noise = keeps_noise()
    return benchmark(
        session,
        spec.benchmark,
        report,
        keep_noise=keep_noise,
        seconds=_ROUGH_SECONDS if keep_noise else SECONDS,
    )


def keeps_noise() -> bool:
    """Returns whether times of a busy machine are published."""
    return bool(os.environ.get(KEEP_NOISE))


def read_job(path: Path) -> str:
    """Returns the text of a job's file.

    Raises:
        JobError: It can't be read, or is not UTF-8.
    """
    try:
        return read_text(path)
    except OSError as error:
        raise JobError(f"{path}: can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: not a job: byte {error.start} is not UTF-8") from error


def job_of(text: str) -> AnyJob:
    """Parses a job.

    Raises:
        JobError: It is none.
    """
    try:
        return parse_job.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise JobError(f"not a job: {where}: {first['msg']}") from error


def run_job(text: str, output: Path, report: Report) -> BaseModel:
    """Runs a job.

    Args:
        text: The job, as JSON.
        output: Existing folder for outputs.
        report: Receives progress events.

    Returns:
        The result; :class:`~builders.jobs.messages.Failure` if the job raised.
    """
    try:
        job = job_of(text)
    except JobError as error:
        return Failure(error="JobError", message=error.message, hint=None)
    return guarded(lambda: _run(job, Workspace(job.store, output), report))


def guarded(work: Callable[[], BaseModel]) -> BaseModel:
    """Returns what a job returns; :class:`~builders.jobs.messages.Failure` if it raises."""
    try:
        return work()
    except ZooError as error:
        traceback.print_exc()
        return Failure(error=type(error).__name__, message=error.message, hint=error.hint)
    except Exception as error:  # top level of the process: report any error in the result
        traceback.print_exc()
        name = type(error).__name__
        message = f"{name}: {cause_of(error).removeprefix(f'{name}: ')}"
        return Failure(error=name, message=message, hint="see the log for the traceback")


def as_json(result: BaseModel) -> bytes:
    """Returns a result as a file states it."""
    return result.model_dump_json(indent=1).encode()


def _name(result: BaseModel) -> str:
    """Returns the name of the file of a result."""
    verification = result.verification if isinstance(result, BuildOutput) else None
    is_verified = verification is not None and verification.passed
    return VERIFIED if is_verified and os.environ.get(APART) else RESULT


def _run(job: AnyJob, workspace: Workspace, report: Report) -> BaseModel:
    match job:
        case ExportJob():
            return run_export(job, workspace, report)
        case ReferenceJob():
            return run_reference(job, workspace, report)
        case BuildJob():
            return run_build(job, workspace, report)
        case VerifyJob():
            return run_verify(job, workspace, report)
        case _:
            assert_never(job)


def _end_with(parent: int) -> None:
    """Exits when the parent process has ended, because nobody would read the result."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def _streams(log: Path) -> Iterator[Report]:
    """Reserves standard output for events; redirects all other output, even native, to the log."""
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


def main(arguments: list[str], run: Run = run_job) -> int:
    """Runs the job of a file; returns the exit status, 0 if it succeeded.

    Args:
        arguments: The job's file, and the folder for outputs.
        run: How to run it.
    """
    if len(arguments) != 2:
        print("usage: python -m builders.worker job.json output/", file=sys.stderr)
        return 2
    job, output = Path(arguments[0]), Path(arguments[1])
    output.mkdir(parents=True, exist_ok=True)
    try:
        text = read_job(job)
    except JobError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return JobError.exit_code
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with _streams(output / "log.txt") as report:
        result = run(text, output, report)
    write_whole(output / _name(result), as_json(result))
    return JobError.exit_code if isinstance(result, Failure) else 0
