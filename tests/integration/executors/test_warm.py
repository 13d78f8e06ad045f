"""Workers that are copies of one process fail, are ended and are told apart as any others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.models import SMALL
from support.paths import MANIFESTS, ROOT
from support.waiting import wait_for, wait_for_end

from builders import weights
from builders.executors import LocalExecutor, warm
from builders.jobs.messages import ExportJob
from builders.jobs.progress import Event, silent
from builders.photos.calibration import shipped
from builders.recipe import export_form
from builders.recipe.export_form import Form
from builders.weights.mode import WeightsMode
from zoo.schema.manifest import Manifest
from zoo.schema.precisions import Precision
from zoo.util.digest import sha256_file
from zoo.util.errors import ClusterError, JobError

JOB = ExportJob.model_construct(store="store")
COLD = (sys.executable, "-c", "import sys; sys.exit(7)")
"""A worker that is no copy."""

SERVER = """
import sys
from builders.worker import execute, warm
warm.load = lambda: None
execute.main = lambda arguments: exec(open(arguments[1] + "/../code").read()) or 3
sys.exit(warm.main(sys.argv[1]))
"""
"""The process that is copied, without PyTorch; a copy runs the code beside its folder."""

pytestmark = pytest.mark.skipif(not warm.CAN_COPY, reason="Linux only")


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    monkeypatch.setattr(warm, "_COMMAND", (sys.executable, "-c", SERVER))
    executor = LocalExecutor(60, COLD, warm=True)
    yield executor
    executor.stop()


def prepare(folder: Path, code: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "code").write_text(f"import os, sys, time; folder = arguments[1]\n{code}\n")
    return folder


def fails(executor: LocalExecutor, folder: Path, code: str) -> str:
    """Runs code as a job; returns what is said of its end."""
    with pytest.raises(JobError) as caught:
        executor.run(JOB, prepare(folder, code), silent)
    return f"{caught.value.message}; {caught.value.hint}"


def test_each_job_has_a_process_a_session_and_a_log_of_its_own(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    code = (
        "print(os.getpid(), os.getsid(0), os.getppid(), file=sys.stderr); import builtins\n"
        "print('left' if hasattr(builtins, 'mark') else 'clean', file=sys.stderr)\n"
        "builtins.mark = 1"
    )
    said = [fails(executor, tmp_path / name, code) for name in ("one", "two")]
    found = [re.findall(r"(\d+) (\d+) (\d+) \| clean", text)[0] for text in said]
    (first, first_session, parent), (second, second_session, other) = found
    assert first == first_session != second == second_session
    assert parent == other != str(os.getpid())
    assert all(" 3 " in text for text in said)  # the exit status


def test_events_come_through(executor: LocalExecutor, tmp_path: Path) -> None:
    seen: list[Event] = []
    event = Event(stage="export", done=1, total=2, note="x")
    folder = prepare(tmp_path / "one", f"print({event.to_line()!r}, end='', flush=True)")
    with pytest.raises(JobError):
        executor.run(JOB, folder, seen.append)
    assert seen == [event]


def test_a_crash_is_named_and_the_next_job_runs(executor: LocalExecutor, tmp_path: Path) -> None:
    code = "print('about to crash', file=sys.stderr, flush=True); os.abort()"
    said = fails(executor, tmp_path / "one", code)
    assert "SIGABRT" in said
    assert "about to crash" in said
    assert " 3 " in fails(executor, tmp_path / "two", "")


def test_an_error_is_in_the_log(executor: LocalExecutor, tmp_path: Path) -> None:
    assert "ZeroDivisionError" in fails(executor, tmp_path / "one", "1 / 0")


def test_a_hang_is_ended_with_what_it_started(
    executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert " 3 " in fails(executor, tmp_path / "one", "")  # the original has loaded
    monkeypatch.setattr(executor, "_timeout", 1)
    code = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "open(folder + '/pid', 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    assert "after 1 s" in fails(executor, tmp_path / "two", code)
    wait_for_end(int((tmp_path / "two" / "work" / "pid").read_text()))


def test_where_it_does_not_load_a_worker_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(warm, "_COMMAND", (sys.executable, "-c", "import nothing_of_that_name"))
    executor = LocalExecutor(60, COLD, warm=True)
    for name in ("one", "two"):
        assert " 7 " in fails(executor, tmp_path / name, "")


def test_a_job_with_another_environment_is_no_copy(
    executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert " 3 " in fails(executor, tmp_path / "one", "")
    monkeypatch.setenv("ZOO_HOME", "elsewhere")
    assert " 7 " in fails(executor, tmp_path / "two", "")


def test_secrets_of_the_farm_are_not_in_a_copy(
    executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_KEYS_PASSPHRASE", "open sesame")
    code = "print(sorted(os.environ.values()), file=sys.stderr)"
    assert "open sesame" not in fails(executor, tmp_path / "one", code)


def test_a_copy_sees_no_gpu(executor: LocalExecutor, tmp_path: Path) -> None:
    """CUDA fails in the copy of a process that has looked for GPUs, and PyTorch looks for them."""
    seen = tmp_path / "seen"
    code = f"open({str(seen)!r}, 'w').write(repr(os.environ.get('CUDA_VISIBLE_DEVICES')))"
    assert " 3 " in fails(executor, tmp_path / "one", code)
    assert seen.read_text() == "''"


def test_a_stop_ends_all_jobs_as_stopped_not_failed(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    code = "open(folder + '/pid', 'w').write(str(os.getpid())); time.sleep(600)"
    folders = [prepare(tmp_path / name, code) for name in ("one", "two")]
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(executor.run, JOB, folder, silent) for folder in folders]
        workers = [int(wait_for(folder / "work" / "pid")) for folder in folders]
        executor.stop()
        for run in runs:
            with pytest.raises(ClusterError):
                run.result()
    for worker in workers:
        wait_for_end(worker)
    with pytest.raises(ClusterError):
        executor.run(JOB, prepare(tmp_path / "three", ""), silent)


def test_a_stop_while_it_loads_is_not_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"open({str(tmp_path / 'pid')!r}, 'w').write('x'); import time; time.sleep(600)"
    monkeypatch.setattr(warm, "_COMMAND", (sys.executable, "-c", code))
    executor = LocalExecutor(600, COLD, warm=True)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(executor.run, JOB, prepare(tmp_path / "one", ""), silent)
        wait_for(tmp_path / "pid")
        executor.stop()
        with pytest.raises(ClusterError):
            run.result()


FARM = f"""
import signal, sys, threading
from pathlib import Path
from builders import weights
from builders.executors import LocalExecutor, warm
from builders.jobs.messages import ExportJob
from builders.jobs.progress import silent
from builders.run.parallel import each
warm._COMMAND = (sys.executable, "-c", {SERVER!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # CI may have it ignored
executor = LocalExecutor(warm=True, exports_at_once=2)
job = ExportJob.model_construct(store="store")
folders = [Path(sys.argv[1]) / name for name in ("one", "two")]
each(lambda folder: executor.run(job, folder, silent), folders, 2, executor.stop)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_farm_that_is_stopped_leaves_no_process(number: int, tmp_path: Path) -> None:
    code = (
        "import threading; threading.Thread(\n"
        "    target=execute._end_with, args=(os.getppid(),), daemon=True).start()\n"
        "open(folder + '/pids', 'w').write(f'{os.getpid()} {os.getppid()}'); time.sleep(600)"
    )
    folders = [prepare(tmp_path / name, code) for name in ("one", "two")]
    with subprocess.Popen(
        [sys.executable, "-c", FARM, str(tmp_path)], stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as farm:  # fmt: skip
        started = {int(pid) for f in folders for pid in wait_for(f / "work" / "pids").split()}
        farm.send_signal(number)
    assert farm.returncode == -number
    assert len(started) == 3  # two copies and their original
    for process in started:
        wait_for_end(process)


@pytest.mark.full
def test_copies_beside_each_other_export_the_bytes_of_a_worker_alone(
    manifests: dict[str, Manifest], tmp_path: Path
) -> None:
    manifest = manifests[SMALL]
    identity = weights.identify(manifest, WeightsMode.SEEDED)
    form, images = Form(dialect="dynamo-20", precision=Precision.FP32), shipped()
    job = ExportJob(
        manifest=manifest, manifest_dir=str(MANIFESTS), weights=identity,
        inputs={"fp32": export_form.export_inputs(manifest, identity, form, images.name)},
        calibration=images, fp32=None, state=None, store=str(tmp_path / "store"),
    )  # fmt: skip

    def export(executor: LocalExecutor, name: str) -> dict[str, str]:
        (tmp_path / name).mkdir()
        folder = executor.run(job, tmp_path / name, silent).folder
        files = ("fp32.onnx", "golden.npz", "state.safetensors")
        return {file: sha256_file(folder / file) for file in files}

    alone = export(LocalExecutor(), "alone")
    copies = LocalExecutor(warm=True, exports_at_once=2)
    with ThreadPoolExecutor(2) as pool:
        beside = list(pool.map(lambda name: export(copies, name), ("one", "two")))
    copies.stop()
    assert beside == [alone, alone]
