"""Many machines: real schedulers and workers on loopback; what they build is fake, mostly."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from support.dask_cluster import Cluster, other_python, zoo_farm
from support.goldens import assert_golden
from support.make_farm import Farm
from support.models import LITE
from support.paths import ROOT
from support.records import toolchain
from support.skips import NO_OTHER_PYTHON
from support.waiting import wait_for

from benchmarks import fake_builder
from benchmarks.scale import Load, fake_job, simulate
from builders.cli import main
from builders.executors.dask import offers
from builders.executors.dask.capabilities import Gpu, make_slots
from builders.executors.dask.certificates import make_certs
from builders.executors.dask.client import DaskExecutor
from builders.executors.dask.resources import needs_of
from builders.jobs.messages import BuildJob, BuildOutput
from builders.jobs.progress import Display, Event, silent
from builders.jobs.scratch import check_quarantine, keep
from builders.run.parallel import each
from zoo.cluster.tls import check_address
from zoo.repository.repository import Repository
from zoo.schema.targets import Arch, RuntimeLine
from zoo.stores import LocalStore
from zoo.util.errors import ClusterError, JobError, QuarantineError, UsageError


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "certs"
    made = zoo_farm("cluster", "certs", str(folder))
    assert made.returncode == 0, made.stderr
    assert {path.stat().st_mode & 0o077 for path in folder.iterdir()} == {0}
    return folder


@pytest.fixture(scope="module")
def cluster(certs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two workers with a fake builder."""
    folder = tmp_path_factory.mktemp("workers")
    launcher = fake_builder.write_launcher(folder / "python")
    with Cluster(folder, certs) as made:
        said = made.work("--cpu-slots", "2", "--name", "here", "--builder-python", str(launcher))
        assert "worker here-cpu0: cpu-ort1.32, export" in said
        yield made


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Bench:
    """A store, and jobs of a fake builder that reads and writes there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder, folder / "notes"
        self.notes.mkdir()
        self.repository = Repository(LocalStore(folder / "store"))
        self.repository.claim("dry-run")

    def job(self, name: str, kills: int = 0, seconds: float = 0.2) -> BuildJob:
        return fake_job(name, kills, seconds, self.notes, self.repository)

    def run(self, executor: DaskExecutor, job: BuildJob) -> Path:
        output = self.folder / f"out-{job.inputs.model}"
        output.mkdir()
        executor.run(job, output, silent)
        return output

    def noted(self, name: str) -> list[str]:
        return [line.partition(" ")[0] for line in fake_builder.attempts(self.notes, name)]


def test_nobody_connects_without_a_certificate_of_the_same_authority(
    cluster: Cluster, tmp_path: Path
) -> None:
    make_certs(tmp_path / "others")
    for folder, address in (
        (tmp_path / "others", cluster.address),
        (None, cluster.address.replace("tls", "tcp")),
    ):
        with pytest.raises(ClusterError, match=re.escape(address)):
            DaskExecutor(address, folder)
    with pytest.raises(UsageError, match=r"--certs\b"):
        DaskExecutor(cluster.address)
    with pytest.raises(UsageError, match="unencrypted"):
        DaskExecutor("tcp://farm.example.org:8786")
    refused = zoo_farm("cluster", "scheduler", "--listen", "0.0.0.0:0")
    assert refused.returncode == 2
    assert "--listen 0.0.0.0:0" in refused.stderr
    # TLS both ways: a client that only checks the server, and shows nothing, is sent away.
    host, _, port = cluster.address.removeprefix("tls://").rpartition(":")
    context = ssl.create_default_context(cafile=str(cluster.certs) + "/ca.pem")
    context.check_hostname = False
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
        context.wrap_socket(plain) as secure,
    ):
        secure.recv(1)


def test_status_says_what_there_is_and_a_target_that_nobody_builds_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    place = (cluster.address, "--certs", str(cluster.certs))
    shown = zoo_farm("cluster", "status", *place)
    assert shown.stdout == (
        "here-cpu0: cpu-ort1.32, export\nhere-cpu1: cpu-ort1.32, export\n2 workers on 1 machine\n"
    )
    run = ("--store", str(tmp_path), "--executor", "dask", "--scheduler", *place)
    planned = zoo_farm(
        "plan", "--models", LITE, "--gpu", "cpu", "--precision", "fp32", *run, "--json"
    )
    [engine] = json.loads(planned.stdout)["engines"]
    assert (engine["model"], engine["action"]) == (LITE, "export")
    for command in ("zoo", "plan"):
        refused = zoo_farm(command, "--gpu", "sm90", *run)
        assert refused.returncode == ClusterError.exit_code
        assert "sm90" in refused.stderr
        assert "cpu-ort1.32 (2), export (2)" in refused.stderr


def test_a_job_whose_worker_dies_runs_on_another_and_one_that_kills_three_is_quarantined(
    cluster: Cluster, bench: Bench
) -> None:
    executor = cluster.executor(2)
    jobs = [bench.job("unlucky", kills=1), bench.job("killer", kills=99, seconds=1.2)]
    jobs += [bench.job(f"good{number}") for number in range(6)]
    failed: dict[str, JobError] = {}

    def one(job: BuildJob) -> None:
        try:
            output = bench.run(executor, job)
            assert f"{job.inputs.model} by".encode() in (output / "engine").read_bytes()
        except JobError as error:
            failed[job.inputs.model] = error

    try:
        each(one, jobs, executor.slots, executor.stop)
    finally:
        executor.stop()
    assert set(failed) == {"killer"}
    assert type(failed["killer"]) is QuarantineError
    assert re.search(r"\b3 workers\b.*\(here-cpu", str(failed["killer"]))
    assert bench.noted("unlucky") == ["begun", "begun", "done"]
    assert bench.noted("killer") == ["begun"] * 3
    assert all(bench.noted(f"good{number}") == ["begun", "done"] for number in range(6))
    output = bench.folder / "out-killer"
    log = (output / "log.txt").read_text()
    assert log.count("working on killer") >= 1  # it came over before the worker died
    assert log.count("died while running this job") == 3
    kept = bench.folder / "_failures" / "killer"
    keep(output, kept)
    with pytest.raises(JobError, match="quarantine"):
        check_quarantine(jobs[1], kept)
    check_quarantine(bench.job("killer"), kept)  # other inputs are another job


def test_a_farm_that_is_interrupted_ends_its_jobs(cluster: Cluster, bench: Bench) -> None:
    executor = cluster.executor(2)
    job = bench.job("long", seconds=500)

    def stop_when_begun(_: None) -> None:
        wait_for(bench.notes / "long")
        raise KeyboardInterrupt

    def either(item: BuildJob | None) -> None:
        if item is None:
            stop_when_begun(item)
        else:
            bench.run(executor, item)

    with pytest.raises(KeyboardInterrupt):
        each(either, [job, None], 2, executor.stop)
    again = cluster.executor(2)
    try:  # both workers are free: neither is still at the job that nobody wants
        each(lambda n: bench.run(again, bench.job(n)), ["a", "b", "c", "d"], 4, again.stop)
    finally:
        again.stop()
    assert bench.noted("long") == ["begun"]


@pytest.mark.full
def test_scheduler_killed_in_mid_build_then_the_same_command_goes_on(
    copy: Farm, tmp_path: Path
) -> None:
    """Real builders and the real pipeline: TensorRT-RTX builds for a GPU that is not here."""
    removed = [r for r in copy.repository.records(LITE) if r.inputs.precision == "fp16"]
    for record in removed:
        copy.repository.store.delete(f"records/{LITE}/{record.key}.json")
    before = {r.key: r.created for r in copy.repository.records(LITE)}

    def command(address: str) -> list[str]:
        return [
            sys.executable, "-m", "builders.cli", "--manifests", str(copy.manifests), "zoo",
            "--store", str(copy.store), "--site", str(tmp_path / "site"), "--models", LITE,
            "--gpu", "cpu,sm86", "--executor", "dask", "--scheduler", address,
        ]  # fmt: skip

    environment = {**os.environ, **copy.home, "PYTHONUNBUFFERED": "1"}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with Cluster(tmp_path / "first", None) as first:
        assert "sm86-rtx1.7" in first.work("--name", "a")
        with subprocess.Popen(
            command(first.address), cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as farm:  # fmt: skip
            assert farm.stdout is not None
            assert "build rtx1.7" in farm.stdout.readline()
            first.kill_scheduler()
            errors = farm.communicate(timeout=120)[1]
    assert farm.returncode == ClusterError.exit_code
    # The error and nothing else: no log, no traceback. Its words depend on what notices it first.
    lost = rf"the connection to the scheduler|the scheduler {re.escape(first.address)}"
    assert_golden("executors/lost-scheduler", re.sub(lost, "SCHEDULER", errors))
    assert {r.key for r in copy.repository.records(LITE)} == set(before)
    with Cluster(tmp_path / "second", None) as second:
        second.work("--name", "b")
        done = subprocess.run(
            command(second.address), cwd=ROOT, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 published, 2 already published" in done.stdout
    after = {r.key: r.created for r in copy.repository.records(LITE)}
    assert before.items() < after.items()
    assert set(after) - set(before) == {record.key for record in removed}


@pytest.mark.full
def test_farm_and_scheduler_on_one_python_and_the_worker_on_another(
    certs: Path, bench: Bench, tmp_path: Path
) -> None:
    if (other := other_python()) is None:
        pytest.skip(NO_OTHER_PYTHON)
    venv = tmp_path / "venv"
    subprocess.run([other, "-m", "venv", venv], check=True)
    python = str(venv / "bin" / "python")
    # The farm's pins are of its own Python; this one gets what it takes.
    subprocess.run([python, "-m", "pip", "install", "-q", f"{ROOT}[dask]"], check=True)
    launcher = fake_builder.write_launcher(tmp_path / "python", python)
    with Cluster(tmp_path, certs) as cluster:
        said = cluster.work("--builder-python", str(launcher), python=python)
        assert re.search(r"^export: .*\btorch, timm, onnx\b", said, re.MULTILINE)
        executor = cluster.executor(1)
        try:
            output = bench.run(executor, bench.job("any"))
        finally:
            executor.stop()
    result = BuildOutput.model_validate_json((output / "result.json").read_bytes())
    assert not result.machine.python.startswith(f"3.{sys.version_info.minor}.")


@pytest.mark.full
def test_jobs_over_workers_that_die_at_random_are_done_once_each(tmp_path: Path) -> None:
    load = Load(jobs=30, workers=4, crashes=0.1, seconds=0.05, seed=1)
    found = simulate(load, tmp_path)
    assert found.killed > 0
    assert (found.published, found.twice, found.failed) == (load.jobs, 0, 0)
    assert found.begun == load.jobs + found.killed


RTX = toolchain("rtx", "1.7.1.116", cuda=13)
ORT = toolchain("ort", "1.32.0")
TRT = toolchain("trt", "11.4.0.8", cuda=13)


def nvidia_smi(command: list[str]) -> str:
    if "compute_cap" in command[1] and "name" not in command[1]:
        return "8.6\n8.6\n"
    return "RTX A4000, 8.6, 580.95.05, 16376\n"


def test_each_gpu_is_a_slot_and_exports_go_beside_them() -> None:
    chains = {chain.kind: chain for chain in (ORT, RTX, TRT)}
    found = [Gpu(uuid=f"GPU-{number}", arch=Arch("sm86")) for number in range(2)]
    slots = make_slots("box", chains, found, "", 1, nvidia_smi, exports=True)
    assert [slot.name for slot in slots] == ["box-gpu0", "box-gpu1", "box-cpu0"]
    assert [slot.gpu for slot in slots] == ["GPU-0", "GPU-1", None]
    assert {"sm86-trt11.4", "run-sm86-trt11.4", "run-sm86-rtx1.7"} <= slots[0].resources
    assert {"export", "cpu-ort1.32", "run-cpu-ort1.32", "sm86-rtx1.7"} <= slots[2].resources
    assert not slots[2].has({"sm86-trt11.4"})
    assert not slots[2].has({"run-sm86-rtx1.7"})  # it builds for that GPU and can't run it
    sm86 = Arch("sm86")
    chosen = offers.choose_toolchains(slots, [sm86, Arch("sm89"), Arch("cpu")], None)
    assert chosen == {sm86: TRT, Arch("sm89"): RTX, Arch("cpu"): ORT}
    line = RuntimeLine.parse("rtx1.7")
    assert offers.choose_toolchains(slots, [sm86], line) == {sm86: RTX}
    assert offers.runs_on(slots, [Arch("sm80"), sm86], RTX) == sm86
    assert offers.runs_on(slots[2:], [sm86], RTX) is None
    with pytest.raises(ClusterError, match="sm86-trt10") as caught:
        offers.choose_toolchains(slots, [sm86], RuntimeLine.parse("10.13"))
    assert "sm86-trt11.4 (2)" in str(caught.value)


def test_a_job_needs_the_toolchain_to_the_last_digit(bench: Bench) -> None:
    needs = needs_of(bench.job("any"), lambda archs, chain: None)
    assert needs == {"cpu-ort1.32", "ort1.32.0-linux-x86_64"}


def test_bars_of_many_jobs_share_one_display() -> None:
    shown = Console(file=io.StringIO(), force_terminal=True, width=120)
    display = Display(shown)

    def one(name: str) -> None:
        with display.job(name) as report:
            report(Event(stage="build", done=1, total=2, note="half"))
            display.say(f"{name} said so")

    each(one, [f"model{number}" for number in range(8)], 4, lambda: None)
    one("after all had ended")
    assert isinstance(shown.file, io.StringIO)
    assert shown.file.getvalue().count("said so") == 9


def test_the_first_error_stops_the_others() -> None:
    stopped: list[signal.Signals] = []
    with pytest.raises(ZeroDivisionError):
        each(lambda n: 1 // n, [1, 0, 1], 2, lambda: stopped.append(signal.SIGINT))
    assert stopped
    assert each(lambda n: n * n, range(5), 3, lambda: None) == [0, 1, 4, 9, 16]


def container_commands() -> list[list[str]]:
    """Every command that the shipped deployments run."""
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    found = [service["command"] for service in compose["services"].values()]
    for resource in yaml.safe_load_all((ROOT / "docker" / "kubernetes.yaml").read_text()):
        parts = [resource["spec"].get(name) for name in ("scheduler", "worker")]
        found += [c["args"] for part in filter(None, parts) for c in part["spec"]["containers"]]
    return found


def test_deployments_run_commands_that_exist() -> None:
    commands = container_commands()
    assert len(commands) == 6
    for program, *arguments in commands:
        assert program == "zoo-farm"
        options = main.farm_parser().parse_args(arguments)
        assert options.certs  # in a network there is no farm without certificates
        if scheduler := getattr(options, "scheduler", None):
            assert check_address(scheduler, Path(options.certs)) == scheduler
