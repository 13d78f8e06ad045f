"""Jobs that an older version kept beside a failed engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.records import blob, build_inputs, loose_tolerance, small_preprocess

from builders.jobs import scratch
from builders.jobs.messages import BuildJob, VerificationSpec, parse_job
from builders.jobs.output_files import JOB, QUARANTINE
from zoo.util.errors import NotRunError

SPEC = VerificationSpec(
    golden=blob(b"golden"),
    preprocess=small_preprocess(),
    tolerance=loose_tolerance(),
    batches=(1, 3),
    benchmark=(),
)
NOW = BuildJob(
    inputs=build_inputs(), onnx=blob(b"onnx"), parameters=1, verification=SPEC, store="store"
)


def older(job: BuildJob) -> str:
    """Returns a job as a version wrote it that called the verification ``prove``."""
    values = json.loads(job.model_dump_json())
    values["prove"] = values.pop("verification")
    return json.dumps(values)


def test_a_job_of_an_older_version_is_reproduced() -> None:
    assert parse_job.validate_json(older(NOW)) == NOW


def test_a_quarantine_of_an_older_version_holds(tmp_path: Path) -> None:
    (tmp_path / QUARANTINE).touch()
    (tmp_path / JOB).write_text(older(NOW))
    with pytest.raises(NotRunError):
        scratch.check_quarantine(NOW, tmp_path)
    scratch.check_quarantine(NOW.model_copy(update={"parameters": 2}), tmp_path)


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "build", "later": 1}'])
def test_a_job_that_this_version_would_not_make_is_not_in_quarantine(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / QUARANTINE).touch()
    (tmp_path / JOB).write_text(text)
    scratch.check_quarantine(NOW, tmp_path)
