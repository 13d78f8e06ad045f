"""Measures an engine's speed in another process than the one that built and verified it.

PyTorch is loaded there already (:mod:`builders.worker.warm`), which saves seconds for each engine,
and its memory is not the engine's. The farm lets nothing else run meanwhile, whereas engines are
built and verified beside other work.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pydantic import BaseModel

from builders.jobs.messages import BuildOutput, VerifyJob, engine_job
from builders.jobs.output_files import RESULT, VERIFIED
from builders.jobs.progress import Report
from builders.jobs.workspace import Workspace
from builders.worker import execute, reference
from zoo.runtime import open_session
from zoo.util.files import write_whole
from zoo.util.loading import read_regular


def main(arguments: list[str]) -> int:
    """Measures the engine of a job that has been verified; returns the exit status."""
    return execute.main(arguments, run=measure)


def measure(text: str, output: Path, report: Report) -> BaseModel:
    """Returns the result of a job with the speed of its engine.

    Args:
        text: The job, as JSON.
        output: Its output folder, with what has been found until now.
        report: Receives progress events.
    """
    return execute.guarded(lambda: _measure(text, output, report))


def _measure(text: str, output: Path, report: Report) -> BuildOutput:
    job = engine_job(execute.job_of(text))
    assert job is not None
    assert job.verification is not None
    found = BuildOutput.model_validate_json(read_regular(output / VERIFIED))
    if isinstance(job, VerifyJob):
        engine = Workspace(job.store, output).blob(job.record.engine)
    else:
        assert found.engine is not None
        engine = output / found.engine
    started = time.perf_counter()
    with open_session(engine, job.inputs) as session:
        rows = execute.timed(session, job.verification, report)
        found = found.model_copy(update={"benchmark": rows, "not_compared": reference.ENDED})
        # If PyTorch ends this process, the engine's own times stay.
        write_whole(output / RESULT, execute.as_json(found))
        comparison, why = reference.measure(
            session, job.verification, rows, report, keep_noise=execute.keeps_noise()
        )
    seconds = (found.cost.proof_seconds or 0) + time.perf_counter() - started
    cost = found.cost.but(proof_seconds=round(seconds, 2))
    return found.model_copy(update={"comparison": comparison, "not_compared": why, "cost": cost})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
