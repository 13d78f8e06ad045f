"""TensorRT-RTX builds in a worker process, for GPUs that are not here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.goldens import raises_golden
from support.installed import installed_inputs
from support.paths import DATA

from builders.executors import LocalExecutor, Outcome
from builders.jobs.messages import BuildJob, BuildOutput
from builders.jobs.progress import silent
from zoo.repository.repository import Repository
from zoo.runtime.header import read_header
from zoo.schema.keys import BuildInputs
from zoo.stores import LocalStore
from zoo.util.errors import JobError

TOY = DATA / "toy.onnx"


def build_in_worker(onnx_file: Path, asked: BuildInputs, folder: Path) -> Outcome:
    """Polygraphy serves one of the two TensorRTs in a process, so RTX builds get their own."""
    repository = Repository(LocalStore(folder / "store"))
    copy = folder / "model.onnx"  # a repository moves what it is given
    shutil.copy(onnx_file, copy)
    job = BuildJob(
        inputs=asked,
        onnx=repository.blobs.add(copy),
        parameters=216,
        verification=None,
        store=repository.store.url,
    )
    output = folder / "output"
    output.mkdir()
    return LocalExecutor().run(job, output, silent)


@pytest.mark.parametrize("archs", [("sm86",), ("sm75",), ("sm120", "sm80", "sm86", "sm89")])
def test_rtx_builds_for_gpus_that_are_not_here(archs: tuple[str, ...], tmp_path: Path) -> None:
    asked = installed_inputs("rtx", *archs)
    outcome = build_in_worker(TOY, asked, tmp_path)
    assert isinstance(outcome.result, BuildOutput)
    assert outcome.result.verification is None
    assert not outcome.result.precision_proven
    found = read_header((tmp_path / "output" / "engine").read_bytes())
    assert set(found.archs or ()) == set(archs)
    assert found.version == asked.toolchain.version
    assert found.length == (tmp_path / "output" / "engine").stat().st_size


def test_rtx_says_what_it_does_not_build(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(JobError, match="TensorRT-RTX") as caught:
        build_in_worker(tmp_path / "bad.onnx", installed_inputs("rtx", "sm86"), tmp_path)
    reason = caught.value.hint or ""  # what the parser logs; Polygraphy's error does not have it
    assert reason
    assert f"[E] {reason}" in (tmp_path / "output" / "log.txt").read_text()
    assert not (tmp_path / "output" / "engine").exists()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_rtx_builds_nothing_under_the_name_of_another_precision(
    precision: str, tmp_path: Path
) -> None:
    asked = installed_inputs("rtx", "sm86", precision=precision)
    with raises_golden(JobError, f"backends/rtx-named-{precision}", match=precision):
        build_in_worker(TOY, asked, tmp_path)
    assert not (tmp_path / "output" / "engine").exists()
