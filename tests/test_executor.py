"""A worker that crashes, hangs or lies fails its job and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from builders.executors import LocalExecutor
from builders.job import BuildJob
from builders.progress import Event, silent
from zoo.errors import JobError

JOB = BuildJob.model_construct()


def execute(code: str, folder: Path, timeout: float = 60) -> None:
    LocalExecutor(timeout, (sys.executable, "-c", code)).run(JOB, folder, silent)


def test_a_crash_of_native_code_is_named_with_the_last_words(tmp_path: Path) -> None:
    code = "import os, sys; print('about to crash', file=sys.stderr, flush=True); os.abort()"
    with pytest.raises(JobError, match="died of SIGABRT") as caught:
        execute(code, tmp_path)
    assert "about to crash" in str(caught.value)


def test_a_hang_is_ended(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="stopped after 1 s"):
        execute("import time; time.sleep(60)", tmp_path, timeout=1)


def test_a_worker_without_a_result_has_failed(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="ended with 0 and no result"):
        execute("pass", tmp_path)


def test_events_come_through_and_noise_does_not(tmp_path: Path) -> None:
    seen: list[Event] = []
    code = (
        "print('noise'); print('{\"stage\": 1}'); "
        'print(\'{"stage": "build", "done": 1, "total": 2, "note": "x"}\')'
    )
    with pytest.raises(JobError):
        LocalExecutor(60, (sys.executable, "-c", code)).run(JOB, tmp_path, seen.append)
    assert seen == [Event(stage="build", done=1, total=2, note="x")]
