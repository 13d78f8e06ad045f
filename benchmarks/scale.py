"""Simulates the farm at scale: thousands of jobs over tens of workers that die at random.

All on one machine. Everything but the work is real: certificates, scheduler, a process per worker
and one per job, the executor, the store. :mod:`benchmarks.fake_builder` takes as long as a build
and kills its worker at random.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import sub
from pathlib import Path

from benchmarks import fake_builder
from benchmarks.scale_note import to_markdown
from builders.executors.dask.certificates import make_certs
from builders.executors.dask.client import KILLS, DaskExecutor
from builders.executors.dask.worker import Answer
from builders.jobs.messages import BuildJob
from builders.jobs.progress import silent
from builders.paths import ROOT
from builders.run.parallel import each
from zoo.repository.repository import Repository
from zoo.schema.keys import BuildInputs
from zoo.schema.manifest import BatchRange, Preprocess
from zoo.schema.records import Blob, Kind
from zoo.schema.targets import Toolchain
from zoo.stores import LocalStore
from zoo.util.errors import ClusterError, ZooError
from zoo.util.files import write_whole

_ALONE = 100  # jobs that run when nothing else does
_NO_BLOB = Blob(sha256="0" * 64, size=0)


@dataclass(frozen=True, kw_only=True)
class Load:
    """The load of a simulation.

    Attributes:
        jobs: Number of jobs.
        workers: Number of worker processes.
        crashes: Fraction of attempts that kill their worker.
        seconds: Duration of a job.
        seed: Random seed of the crashes.
    """

    jobs: int
    workers: int
    crashes: float = 0.05
    seconds: float = 2.0
    seed: int = 0

    def kills(self) -> list[int]:
        """Draws how many workers each job kills; too few to quarantine it."""
        draw = random.Random(self.seed)
        counts = []
        for _ in range(self.jobs):
            count = 0
            while count < KILLS - 1 and draw.random() < self.crashes:
                count += 1
            counts.append(count)
        return counts


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The results of a simulation.

    Attributes:
        load: The load.
        published: Number of records written.
        twice: Number of records that a second job tried to write.
        failed: Number of jobs without an engine.
        begun: Number of attempts, according to the jobs' notes.
        killed: Number of workers that died.
        seconds: Duration from the first job to the last record.
        overhead: Per job, seconds from submission to answer, minus the worker's time.
        alone: The same for jobs of no length that run one after the other once the others are done.
        around: Per job, seconds that the worker spent outside the child process: upload, folder.
        busy: Fraction of this machine's processors in use.
        scheduler_cpu: Processor time of the scheduler in seconds.
        client_cpu: Processor time of the farm in seconds.
    """

    load: Load
    published: int
    twice: int
    failed: int
    begun: int
    killed: int
    seconds: float
    overhead: Sequence[float]
    alone: Sequence[float]
    around: Sequence[float]
    busy: float
    scheduler_cpu: float
    client_cpu: float


def simulate(load: Load, folder: Path) -> Measured:
    """Runs a simulation.

    Args:
        load: The load.
        folder: An empty folder for the store, notes, certificates and logs.

    Raises:
        ClusterError: The cluster did not start.
    """
    certs, notes = folder / "certs", folder / "notes"
    notes.mkdir()
    make_certs(certs)
    repository = Repository(LocalStore(folder / "store"))
    repository.claim(Kind.DRY_RUN)
    launcher = fake_builder.write_launcher(folder / "python")
    with started(
        ["scheduler", "--listen", "127.0.0.1:0", "--certs", str(certs)], folder / "scheduler.log"
    ) as scheduler:
        address = wait_for_line(folder / "scheduler.log", "scheduler: ")
        workers = ["worker", address, "--certs", str(certs), "--builder-python", str(launcher)]
        workers += ["--cpu-slots", str(load.workers)]
        with started(workers, folder / "workers.log"):
            return _run(load, folder, repository, address, scheduler.pid)


def _run(
    load: Load, folder: Path, repository: Repository, address: str, scheduler: int
) -> Measured:
    answers: list[tuple[float, Answer]] = []
    executor = DaskExecutor(
        address, folder / "certs", measure=lambda seconds, answer: answers.append((seconds, answer))
    )
    notes = folder / "notes"

    def run_job(name: str, kills: int, seconds: float) -> str:
        job = fake_job(name, kills, seconds, notes, repository)
        try:
            with tempfile.TemporaryDirectory(dir=folder) as output:
                executor.run(job, Path(output), silent)
        except ZooError as error:
            print(f"{job.inputs.model}: {error}", file=sys.stderr)
            return "failed"
        return "published" if publish(repository, job) else "twice"

    def numbered(item: tuple[int, int]) -> str:
        return run_job(f"job{item[0]}", item[1], load.seconds)

    _wait_for_workers(executor, load.workers)
    before = _meters(scheduler)
    ends = Counter(each(numbered, list(enumerate(load.kills())), executor.slots, executor.stop))
    seconds, used, ticks, cpu, client = map(sub, _meters(scheduler), before)
    loaded = answers[:]
    lines = [line for path in notes.iterdir() for line in path.read_text().splitlines()]
    begun = sum(line.startswith("begun") for line in lines)
    _wait_for_workers(executor, load.workers)  # until those that died are replaced
    for number in range(_ALONE):
        run_job(f"alone{number}", 0, 0)
    executor.stop()
    return Measured(
        load=load,
        published=ends["published"],
        twice=ends["twice"],
        failed=ends["failed"],
        begun=begun,
        killed=begun - sum(line.startswith("done") for line in lines),
        seconds=seconds,
        overhead=[whole - answer.seconds[1] for whole, answer in loaded],
        alone=[whole - answer.seconds[1] for whole, answer in answers[len(loaded) :]],
        around=[answer.seconds[1] - answer.seconds[0] for _, answer in loaded],
        busy=used / max(1, ticks),
        scheduler_cpu=cpu,
        client_cpu=client,
    )


def _wait_for_workers(executor: DaskExecutor, count: int) -> None:
    deadline = time.monotonic() + 60 + 5 * count
    while (there := len(executor.workers())) < count:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"only {there} of {count} workers started",
                hint="is the machine busy with something else?",
            )
        time.sleep(0.5)


def _meters(scheduler: int) -> tuple[float, int, int, float, float]:
    """Returns clock, busy ticks, all ticks, and the CPU seconds of scheduler and farm."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    idle = ticks[3] + ticks[4]  # idle and waiting for I/O
    clock = time.perf_counter()
    return clock, sum(ticks) - idle, sum(ticks), cpu_seconds(scheduler), time.process_time()


def fake_job(
    name: str, kills: int, seconds: float, notes: Path, repository: Repository
) -> BuildJob:
    """Returns a job for :mod:`benchmarks.fake_builder`."""
    inputs = BuildInputs(
        model=name,
        onnx=_NO_BLOB.sha256,
        preprocess=Preprocess(
            input_size=32, crop=1.0, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1)
        ),
        archs=("cpu",),
        precision="fp32",
        toolchain=Toolchain.model_validate(fake_builder.TOOLCHAIN),
        profiles=(BatchRange(min=1, opt=1, max=1),),
        options={"kills": kills, "seconds": seconds, "notes": str(notes)},
    )
    return BuildJob(
        inputs=inputs, onnx=_NO_BLOB, parameters=1, verification=None, store=repository.store.url
    )


def publish(repository: Repository, job: BuildJob) -> bool:
    """Writes a job's record unless it exists, as publishing does; returns whether it did."""
    key = f"records/{job.inputs.model}/{job.inputs.key}.json"
    return repository.store.put(key, job.model_dump_json().encode(), if_absent=True)


@contextmanager
def started(
    arguments: list[str], log: Path, python: str = sys.executable
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``zoo-farm cluster …`` as a process for the duration of the context."""
    command = [python, "-m", "builders.cli", "cluster", *arguments]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_line(log: Path, start: str, seconds: float = 60) -> str:
    """Waits for a line in a log and returns what follows its start.

    Raises:
        ClusterError: The line does not appear in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        for line in text.splitlines(keepends=True):
            if line.startswith(start) and line.endswith("\n"):
                return line.removeprefix(start).strip()
        time.sleep(0.05)
    raise ClusterError(f"{log}: no '{start}' within {seconds:.0f} s; it has: {log.read_text()}")


def cpu_seconds(pid: int) -> float:
    """Returns the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str]) -> int:
    """Runs a simulation and writes its note; returns 0 if every job was published once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000, help="number of jobs")
    parser.add_argument("--workers", type=int, default=50, help="number of workers")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of a job")
    parser.add_argument("-o", "--output", type=Path, help="file for the results, as Markdown")
    options = parser.parse_args(arguments)
    load = Load(jobs=options.jobs, workers=options.workers, seconds=options.seconds)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        try:
            measured = simulate(load, Path(folder))
        except ZooError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
    text = to_markdown(measured, f"python -m benchmarks.scale {' '.join(arguments)}")
    if options.output:
        write_whole(options.output, text.encode())
    print(text)
    return 0 if measured.published == load.jobs and not measured.twice else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
