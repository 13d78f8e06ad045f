"""Parses the engines and exports that a worker returned, before anything of them is stored."""

from __future__ import annotations

from pathlib import Path

from builders.jobs.messages import BuildJob, BuildOutput, ExportOutput, Job
from builders.jobs.onnx_check import check_onnx
from builders.jobs.results import Result
from zoo.runtime.header import check_engine
from zoo.schema.runtimes import has_header
from zoo.util.errors import JobError, MissingPackageError, ZooError

_HINT = "the worker is broken, or someone tampered with it: nothing that it returned was stored"


def check_made(job: Job, result: Result, folder: Path) -> None:
    """Checks what a worker made: ONNX models are parsed, TensorRT's headers match the job.

    ONNX is parsed in a child process without secrets; of TensorRT's engines only the header is
    read. Nothing is run.

    Args:
        job: The job.
        result: Its result.
        folder: Where its files are, out of the worker's reach.

    Raises:
        MissingPackageError: This machine can't parse it.
        JobError: A file is not what it should be.
    """
    name = ""
    try:
        if isinstance(job, BuildJob) and isinstance(result, BuildOutput) and result.engine:
            name = result.engine
            if has_header(job.inputs.toolchain.kind):
                check_engine(folder / name, job.inputs, None)
            else:
                check_onnx(folder / name, load=True)
        elif isinstance(result, ExportOutput):
            for export in result.exports:
                name = export.onnx
                check_onnx(folder / name, load=False)
    except MissingPackageError:
        raise
    except ZooError as error:
        raise JobError(f"a worker returned {name}: {error.message}", hint=_HINT) from error
