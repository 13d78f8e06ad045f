"""A worker that crashes, hangs, grows or lies fails its job and nothing else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.goldens import assert_golden
from support.paths import ROOT
from support.waiting import wait_for, wait_for_end

from builders.executors import LocalExecutor, local
from builders.executors.docker import DockerExecutor
from builders.executors.local import parse_limit, resident_memory
from builders.jobs.messages import BuildJob, Failure
from builders.jobs.progress import Event, silent
from builders.worker.execute import run_job
from zoo.util.errors import JobError, MissingPackageError, UsageError, ZooError

JOB = BuildJob.model_construct(store="store", verification=None)
MIB = 2**20


def execute(code: str, folder: Path, timeout: float = 60, memory: int | None = None) -> None:
    LocalExecutor(timeout, (sys.executable, "-c", code), memory=memory).run(JOB, folder, silent)


@contextmanager
def raises_no_result(status: int = 0) -> Iterator[None]:
    """Expects a worker that ends by itself, with an exit status and without a result."""
    with pytest.raises(JobError) as caught:
        yield
    assert caught.value.exit_code == 14
    assert_golden("executors/no-result", caught.value.message, {f" {status} ": " STATUS "})


def test_a_crash_of_native_code_is_named_with_the_last_words(tmp_path: Path) -> None:
    code = "import os, sys; print('about to crash', file=sys.stderr, flush=True); os.abort()"
    with pytest.raises(JobError) as caught:
        execute(code, tmp_path)
    assert_golden("executors/crash", caught.value)


def test_a_segmentation_fault_fails_its_job_and_the_next_one_runs(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    code = (
        "import ctypes, sys\n"
        "with open(sys.argv[2] + '/log.txt', 'a') as log: log.write('reading tensor 7\\n')\n"
        "if sys.argv[2].endswith('one/work'): ctypes.string_at(0)\n"
    )
    with pytest.raises(JobError, match="SIGSEGV") as caught:
        execute(code, tmp_path / "one")
    assert "reading tensor 7" in (caught.value.hint or "")
    with raises_no_result():
        execute(code, tmp_path / "two")


def test_a_crash_behind_a_wrapper_script_is_named(tmp_path: Path) -> None:
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
    wrapper.chmod(0o755)
    command = (str(wrapper), "-c", "import ctypes; ctypes.string_at(0)")
    with pytest.raises(JobError, match="SIGSEGV"):
        LocalExecutor(60, command).run(JOB, tmp_path, silent)


def test_a_hang_is_ended(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        execute("import time; time.sleep(600)", tmp_path, timeout=1)
    assert_golden("executors/timeout", caught.value)


def test_a_hang_of_native_code_that_holds_the_interpreter_is_ended(tmp_path: Path) -> None:
    # PyDLL keeps the interpreter's lock: no Python thread of the worker runs any more.
    code = (
        "import ctypes, sys; print('in native code', file=sys.stderr, flush=True); "
        "ctypes.PyDLL(None).pause()"
    )
    with pytest.raises(JobError, match=r"\b3 s\b") as caught:
        execute(code, tmp_path, timeout=3)
    assert "in native code" in (caught.value.hint or "")


def test_a_worker_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    code = (
        "import sys, time; print('growing', file=sys.stderr, flush=True); "
        f"data = b'x' * {300 * MIB}; time.sleep(600)"
    )
    with pytest.raises(JobError) as caught:
        execute(code, tmp_path, memory=200 * MIB)
    used, limit = re.findall(r"(\d+\.\d\d) GiB", caught.value.message)
    assert 0.2 < float(used) < 1
    assert_golden("executors/memory", caught.value, {used: "USED", limit: "LIMIT"})
    assert limit == "0.20"


def test_memory_of_children_counts_and_they_end_too(tmp_path: Path) -> None:
    child = f"data = b'x' * {300 * MIB}; import time; time.sleep(600)"
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "open(sys.argv[2] + '/pid', 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(JobError, match=r"0\.20 GiB"):
        execute(code, tmp_path, memory=200 * MIB)
    wait_for_end(int((tmp_path / "work" / "pid").read_text()))


def test_a_worker_within_its_limit_runs_to_its_end(tmp_path: Path) -> None:
    with raises_no_result():
        execute("import time; data = b'x' * 1000; time.sleep(0.6)", tmp_path, memory=4096 * MIB)


def test_resident_memory_is_that_of_the_session() -> None:
    code = f"data = b'x' * {100 * MIB}; print('there', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        assert 100 * MIB < resident_memory(process.pid) < 200 * MIB
        process.communicate(b"\n")
    assert resident_memory(process.pid) == 0


def test_what_a_worker_leaves_behind_does_not_hold_the_farm(tmp_path: Path) -> None:
    child = "import time; time.sleep(600)"  # it has the worker's standard output
    code = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "open(sys.argv[2] + '/pid', 'w').write(str(child.pid))\n"
        "os._exit(3)\n"
    )
    with raises_no_result(3):
        execute(code, tmp_path, timeout=500)
    wait_for_end(int((tmp_path / "work" / "pid").read_text()))


FARM = """
import signal, sys
from pathlib import Path
from builders.executors import LocalExecutor, local
from builders.jobs.messages import BuildJob
from builders.jobs.progress import silent
worker = '''
import os, sys, threading, time
from builders.worker.execute import _end_with
threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
open(sys.argv[2] + "/pid", "w").write(str(os.getpid()))
time.sleep(600)
'''
signal.signal(signal.SIGINT, signal.default_int_handler)  # CI may have it ignored
folder = Path(sys.argv[1])
executor = LocalExecutor(command=(sys.executable, "-c", worker))
executor.run(BuildJob.model_construct(store="store"), folder, silent)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_farm_that_is_stopped_leaves_no_worker(number: int, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FARM, str(tmp_path)], stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as farm:  # fmt: skip
        worker = int(wait_for(tmp_path / "work" / "pid"))
        farm.send_signal(number)
    assert farm.returncode == -number
    wait_for_end(worker)


def test_a_worker_without_a_result_has_failed(tmp_path: Path) -> None:
    with raises_no_result():
        execute("pass", tmp_path)


@pytest.mark.parametrize(("text", "said"), [
    ('{"kind": "build"}', "not a job: build.inputs: Field required"),
    ("{", "not a job: the file: Invalid JSON"),
])  # fmt: skip
def test_what_is_no_job_is_said_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    failure = run_job(text, tmp_path, silent)
    assert isinstance(failure, Failure)
    assert failure.message.startswith(said)
    assert "\n" not in failure.message


def test_a_worker_that_says_much_before_its_log_is_open_is_not_held_up(tmp_path: Path) -> None:
    code = "import sys; sys.stderr.write('a warning\\n' * 100_000); print('noise')"
    with raises_no_result():
        execute(code, tmp_path)
    assert (tmp_path / "log.txt").read_text().count("a warning") == 100_000


def test_events_come_through_and_noise_does_not(tmp_path: Path) -> None:
    seen: list[Event] = []
    code = (
        "print('noise'); print('{\"stage\": 1}'); "
        'print(\'{"stage": "build", "done": 1, "total": 2, "note": "x"}\')'
    )
    with pytest.raises(JobError):
        LocalExecutor(60, (sys.executable, "-c", code)).run(JOB, tmp_path, seen.append)
    assert seen == [Event(stage="build", done=1, total=2, note="x")]


@pytest.mark.parametrize(
    ("program", "error", "golden"),
    [
        ("#!/no/such/shell", MissingPackageError, "docker-absent"),
        ("#!/bin/sh\necho no engine there >&2; exit 1", UsageError, "docker-engine"),
    ],
)
def test_a_docker_that_is_not_there_is_said(
    program: str, error: type[ZooError], golden: str, tmp_path: Path
) -> None:
    docker = tmp_path / "docker"
    docker.write_text(program)
    docker.chmod(0o755)
    with pytest.raises(error) as caught:
        DockerExecutor(docker=str(docker))
    assert_golden(f"executors/{golden}", caught.value, {docker: "DOCKER"})


def test_a_limit_is_a_number_above_0() -> None:
    assert parse_limit("MEMORY", "") is None
    assert parse_limit("MEMORY", "2.5") == 2.5
    for text in ("0", "-1", "nan", "inf", "2G"):
        with pytest.raises(UsageError) as caught:
            parse_limit("MEMORY", text)
        assert caught.value.exit_code == 2
        assert_golden("executors/limit", caught.value.message, {f"={text} ": "=TEXT "})


def test_a_job_that_has_ended_is_not_watched_any_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local._Watch, "_SECONDS", 10_000)  # between two looks
    with raises_no_result():
        execute("", tmp_path, timeout=20_000)
