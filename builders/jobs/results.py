"""Reads a worker's result and checks that it answers its job, before anything in it is used."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from typing_extensions import assert_never

from builders.jobs.messages import (
    BuildJob,
    BuildOutput,
    EngineJob,
    ExportJob,
    ExportOutput,
    Failure,
    Job,
    ReferenceJob,
    ReferenceOutput,
    VerifyJob,
    parse_result,
)
from zoo.schema.measurements import Measurement
from zoo.util.errors import JobError

Result = ExportOutput | ReferenceOutput | BuildOutput

_DEPTH = 32  # levels of lists and objects
_LARGEST = 2**63  # no count of bytes or nanoseconds reaches it
_HINT = "farm and worker must be of one version; if they are, the worker is broken or was changed"


def read_result(data: bytes | str, job: Job) -> Result | Failure:
    """Reads ``result.json``.

    Raises:
        JobError: It is not a result, or not a result of this job.
    """
    try:
        result = parse_result.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"]) or "the file"
        raise JobError(f"not a result: {where}: {first['msg']}", hint=_HINT) from error
    _check_plain(dict(result), _DEPTH)
    if not isinstance(result, Failure) and (wrong := _mismatch(result, job)):
        raise JobError(f"not a result of this job: {wrong}", hint=_HINT)
    return result


def _mismatch(result: Result, job: Job) -> str | None:
    """Returns why a result does not answer a job, None if it does."""
    match job:
        case ExportJob():
            return _export_mismatch(result, job)
        case ReferenceJob():
            return None if isinstance(result, ReferenceOutput) else f"it is of kind {result.kind}"
        case BuildJob() | VerifyJob():
            return _build_mismatch(result, job)
        case _:
            assert_never(job)


def _build_mismatch(result: Result, job: EngineJob) -> str | None:
    if not isinstance(result, BuildOutput):
        return f"it is of kind {result.kind}"
    if isinstance(job, BuildJob) and result.engine is None:
        return "it has no engine"
    if isinstance(job, VerifyJob) and result.engine is not None:
        return "it has an engine, and the job was to verify one"
    if (job.verification is None) != (result.verification is None):
        return (
            "its engine was not verified"
            if job.verification
            else "it verified an engine unrequested"
        )
    if result.timing_cache is not None and result.machine.gpu_name is None:
        return "it has a timing cache, and machine.gpu.name is missing"
    return None


def _export_mismatch(result: Result, job: ExportJob) -> str | None:
    if not isinstance(result, ExportOutput):
        return f"it is of kind {result.kind}"
    requested = sorted(inputs.key for inputs in job.inputs.values())
    returned = [export.inputs.key for export in result.exports]
    returned += [export.inputs.key for export in result.disabled]
    if requested != sorted(returned):
        return "its exports are not the requested ones"
    if (result.golden is None) != (job.fp32 is not None):
        return "it has a golden file that was not requested, or lacks one that was"
    return None


def _check_plain(value: Any, depth: int) -> None:
    """Checks that a value can be written into a record and read back.

    Raises:
        JobError: It is nested too deeply, or contains a number that is too large.
    """
    if depth == 0:
        raise JobError(f"not a result: nested more than {_DEPTH} levels deep", hint=_HINT)
    if isinstance(value, dict):
        for part in value.values():
            _check_plain(part, depth - 1)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_plain(part, depth - 1)
    elif isinstance(value, Measurement):
        _check_plain(value.model_dump(), depth)
    elif hasattr(value, "__pydantic_fields__"):
        _check_plain(dict(value), depth - 1)
    elif isinstance(value, int) and abs(value) >= _LARGEST:
        raise JobError("not a result: a number of more than 64 bits", hint=_HINT)
