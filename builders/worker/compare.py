"""Compares an engine with PyTorch in another process than the one that built and verified it.

PyTorch is loaded there already (:mod:`builders.worker.warm`), which saves seconds for each engine.
Its memory is not the engine's, and if it fails, the engine's result stays as it is.
"""

from __future__ import annotations

import time
import traceback
from pathlib import Path

from pydantic import BaseModel

from builders.jobs.messages import BuildOutput, VerifyJob, engine_job, parse_result
from builders.jobs.output_files import RESULT
from builders.jobs.progress import Report
from builders.jobs.workspace import Workspace
from builders.worker import execute, reference
from zoo.runtime import open_session
from zoo.schema.measurements import ComparedBody
from zoo.util.causes import cause_of


def main(arguments: list[str]) -> int:
    """Adds the comparison to the result of the job of a file; returns the exit status."""
    return execute.main(arguments, run=compare)


def compare(text: str, output: Path, report: Report) -> BaseModel:
    """Returns the result that a job has left, with the comparison if its engine passed.

    Args:
        text: The job, as JSON.
        output: Its output folder, with the result.
        report: Receives progress events.
    """
    result = parse_result.validate_json((output / RESULT).read_bytes())
    if not isinstance(result, BuildOutput):
        return result
    if result.verification is None or not result.verification.passed:
        return result
    started = time.perf_counter()
    try:
        comparison, why = _measure(text, result, output, report)
    except Exception as error:  # whatever it is, it says nothing about the engine
        traceback.print_exc()
        comparison, why = None, f"PyTorch did not run: {cause_of(error)}"
    seconds = (result.cost.proof_seconds or 0) + time.perf_counter() - started
    return result.model_copy(
        update={
            "comparison": comparison,
            "not_compared": why,
            "cost": result.cost.but(proof_seconds=round(seconds, 2)),
        }
    )


def _measure(
    text: str, result: BuildOutput, output: Path, report: Report
) -> tuple[ComparedBody | None, str | None]:
    job = engine_job(execute.job_of(text))
    assert job is not None
    assert job.verification is not None
    if isinstance(job, VerifyJob):
        engine = Workspace(job.store, output).blob(job.record.engine)
    else:
        assert result.engine is not None
        engine = output / result.engine
    with open_session(engine, job.inputs) as session:
        return reference.measure(
            session, job.verification, result.benchmark, report, keep_noise=execute.keeps_noise()
        )
