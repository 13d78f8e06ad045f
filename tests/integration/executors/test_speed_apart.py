"""An engine is built by one process and measured by another, which can't take the result away."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support import records
from support.models import SMALL

from builders.executors import LocalExecutor, local, warm
from builders.jobs.messages import BuildJob, BuildOutput, Verification, VerificationSpec
from builders.jobs.output_files import VERIFIED
from builders.jobs.progress import silent
from builders.worker import execute
from zoo.schema.floors import floors
from zoo.schema.manifest import Manifest
from zoo.schema.measurements import BatchTimes
from zoo.schema.precisions import Precision
from zoo.util.errors import JobError

BUILD = f"""
import os, pathlib, sys
work = pathlib.Path(sys.argv[2])
if {execute.APART!r} in os.environ:
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
(work / "engine").write_text("engine")
name = {VERIFIED!r} if os.environ.get({execute.APART!r}) else "result.json"
(work / name).write_text((work.parent / "built").read_text())
"""

SPEED = """
import os, pathlib, sys
work = pathlib.Path(sys.argv[2])
exec((work.parent / "code").read_text())
"""


@pytest.fixture
def job(manifests: dict[str, Manifest]) -> BuildJob:
    spec = VerificationSpec(
        golden=records.blob(b"golden"), preprocess=records.preprocess(),
        tolerance=floors()[Precision.FP32], batches=(1,), benchmark=(1,),
        reference=manifests[SMALL],
    )  # fmt: skip
    inputs = records.build_inputs(toolchain=records.toolchain("ort", "1.32.0"))
    return BuildJob(
        inputs=inputs, onnx=records.blob(b"onnx"), parameters=1, verification=spec, store="store"
    )


@pytest.fixture(autouse=True)
def without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_FARM_REFERENCE", raising=False)
    monkeypatch.setattr(warm, "_COMMAND", (sys.executable, "-c", "import nothing_of_that_name"))
    monkeypatch.setattr(local, "_SPEED", (sys.executable, "-c", SPEED))


def output(**measured: Any) -> BuildOutput:
    verification = Verification(passed=True, reason=None, batches=())
    return records.build_output(verification=verification, **measured)


def run(job: BuildJob, folder: Path, code: str, **options: Any) -> BuildOutput:
    """Runs a job whose second process runs some code."""
    (folder / "built").write_text(output().model_dump_json())
    (folder / "code").write_text(code)
    executor = LocalExecutor(60, (sys.executable, "-c", BUILD), warm=True, parses=False, **options)
    try:
        result = executor.run(job, folder, silent).result
    finally:
        executor.stop()
    assert isinstance(result, BuildOutput)
    return result


def test_the_result_is_that_of_the_process_that_measured(job: BuildJob, tmp_path: Path) -> None:
    timed = output(benchmark=(BatchTimes(batch=1, latency_ms=2.0),)).model_dump_json()
    (tmp_path / "timed").write_text(timed)
    code = (
        f"assert not {{{execute.APART!r}, 'OMP_WAIT_POLICY'}} & os.environ.keys()\n"
        "(work / 'result.json').write_text((work.parent / 'timed').read_text())"
    )
    (row,) = run(job, tmp_path, code).benchmark
    assert row.latency_ms == 2.0


def test_times_stay_if_pytorch_then_crashes(job: BuildJob, tmp_path: Path) -> None:
    code = "(work / 'result.json').write_text((work.parent / 'built').read_text()); os.abort()"
    assert run(job, tmp_path, code).verification is not None


def test_an_engine_that_crashes_while_it_is_timed_fails(job: BuildJob, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="SIGABRT"):
        run(job, tmp_path, "os.abort()")


@pytest.mark.parametrize("why", ["memory", "left out", "nothing to time"])
def test_one_process_does_all_where_pytorch_must_not_run(
    why: str, job: BuildJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {}
    if why == "memory":
        options["memory"] = 2**30
    elif why == "left out":
        monkeypatch.setenv("ZOO_FARM_REFERENCE", "0")
    else:
        spec = job.verification
        assert spec is not None
        job = job.model_copy(update={"verification": spec.model_copy(update={"benchmark": ()})})
    assert run(job, tmp_path, "os.abort()", **options).benchmark == ()
