"""Scale: thousands of jobs over tens of workers that die at random, on one machine.

``python -m builders.scale --jobs 5000 --workers 50 -o docs/results/farm-scale.md``. Everything is
real but the work: certificates, scheduler, one process per worker and one per job, the executor,
the store. :mod:`builders.fake_builder` takes the time of a build and kills its worker at random.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builders import fake_builder
from builders.cluster.certs import make_certs
from builders.executors.dask_client import KILLS, DaskExecutor
from builders.executors.dask_worker import Answer
from builders.job import BuildJob
from builders.parallel import each
from builders.progress import silent
from zoo.errors import ClusterError, ZooError
from zoo.files import write_whole
from zoo.key import BuildInputs
from zoo.machine import describe_machine
from zoo.manifest import BatchRange, Preprocess
from zoo.record import Blob
from zoo.repository import Repository
from zoo.stores import LocalStore
from zoo.target import Toolchain

_ROOT = Path(__file__).resolve().parents[1]
_NO_BLOB = Blob(sha256="0" * 64, size=0)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is run.

    Attributes:
        jobs: How many.
        workers: Worker processes.
        crashes: Share of attempts that kill their worker.
        seconds: That a job works.
        seed: Of who crashes when.
    """

    jobs: int
    workers: int
    crashes: float = 0.05
    seconds: float = 2.0
    seed: int = 0

    def kills(self) -> list[int]:
        """Draws how many workers each job kills; fewer than would put it into quarantine."""
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
    """What came of it.

    Attributes:
        load: What was run.
        published: Records that were written.
        twice: Records that a second job wanted to write.
        failed: Jobs that gave no engine.
        begun: Attempts, by the jobs' own notes.
        killed: Workers that died.
        seconds: Of it all, from the first job to the last record.
        overhead: Per job, seconds from submission to answer, less what the worker spent on it.
        around: Per job, seconds that the worker spent beside the child process: upload, folder.
        scheduler_cpu: Seconds of processor time of the scheduler.
        client_cpu: The same of the farm.
    """

    load: Load
    published: int
    twice: int
    failed: int
    begun: int
    killed: int
    seconds: float
    overhead: Sequence[float]
    around: Sequence[float]
    scheduler_cpu: float
    client_cpu: float


def simulate(load: Load, folder: Path) -> Measured:
    """Runs a load.

    Args:
        load: What to run.
        folder: Empty; gets store, notes, certificates and logs.

    Raises:
        ClusterError: The cluster did not come up.
    """
    certs, notes = folder / "certs", folder / "notes"
    notes.mkdir()
    make_certs(certs)
    repository = Repository(LocalStore(folder / "store"))
    repository.claim("dry-run")
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
    deadline = time.monotonic() + 60 + 5 * load.workers
    while len(executor.workers()) < load.workers:
        if time.monotonic() > deadline:
            raise ClusterError(f"{len(executor.workers())} of {load.workers} workers came up")
        time.sleep(0.5)
    lock = threading.Lock()
    counts = {"published": 0, "twice": 0, "failed": 0}

    def one(item: tuple[int, int]) -> None:
        number, kills = item
        job = fake_job(f"job{number}", kills, load.seconds, folder / "notes", repository)
        try:
            with tempfile.TemporaryDirectory(dir=folder) as output:
                executor.run(job, Path(output), silent)
        except ZooError as error:
            print(f"{job.inputs.model}: {error}", file=sys.stderr)
            what = "failed"
        else:
            what = "published" if publish(repository, job) else "twice"
        with lock:
            counts[what] += 1

    cpu, client, begun = cpu_seconds(scheduler), time.process_time(), time.perf_counter()
    each(one, list(enumerate(load.kills())), executor.slots, executor.stop)
    seconds = time.perf_counter() - begun
    client, cpu = time.process_time() - client, cpu_seconds(scheduler) - cpu
    executor.stop()
    lines = [line for path in (folder / "notes").iterdir() for line in path.read_text().split("\n")]
    return Measured(
        load=load,
        **counts,
        begun=sum(line.startswith("begun") for line in lines),
        killed=sum(load.kills()),
        seconds=seconds,
        overhead=[whole - answer.seconds[1] for whole, answer in answers],
        around=[answer.seconds[1] - answer.seconds[0] for _, answer in answers],
        scheduler_cpu=cpu,
        client_cpu=client,
    )


def fake_job(
    name: str, kills: int, seconds: float, notes: Path, repository: Repository
) -> BuildJob:
    """Returns a job for :mod:`builders.fake_builder`."""
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
        inputs=inputs, onnx=_NO_BLOB, parameters=1, prove=None, store=repository.store.url
    )


def publish(repository: Repository, job: BuildJob) -> bool:
    """Writes a job's record as publishing does, once; returns whether this call wrote it."""
    key = f"records/{job.inputs.model}/{job.inputs.key}.json"
    return repository.store.put(key, job.model_dump_json().encode(), if_absent=True)


@contextmanager
def started(
    arguments: list[str], log: Path, python: str = sys.executable
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``zoo-farm cluster …`` in a Python while the context lasts."""
    command = [python, "-m", "builders.cli", "cluster", *arguments]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=_ROOT, start_new_session=True
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
    """Waits for a line of a log; returns what follows its start.

    Raises:
        ClusterError: It does not come.
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
    """Returns the processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def to_markdown(found: Measured, command: str) -> str:
    """Returns the note of a simulation."""
    load, machine = found.load, describe_machine()
    ideal = load.jobs * load.seconds / load.workers
    percent = [1e3 * value for value in statistics.quantiles(found.overhead, n=100)]
    rows = {
        "published": f"{found.published:,}",
        "published twice": f"{found.twice:,}",
        "failed": f"{found.failed:,}",
        "attempts": f"{found.begun:,}",
        "workers killed in the middle of a job": f"{found.killed:,}",
        "wall time": f"{found.seconds:.0f} s",
        "throughput": f"{load.jobs / found.seconds:.1f} jobs/s",
        "wall time if nothing but the work took time": f"{ideal:.0f} s",
        "submission to answer, less the worker's own time: median": f"{percent[49]:.1f} ms",
        "the same, 95th percentile": f"{percent[94]:.1f} ms",
        "around the child in the worker (folder, upload): median": (
            f"{1e3 * statistics.median(found.around):.1f} ms"
        ),
        "scheduler, processor time per job": f"{1e3 * found.scheduler_cpu / load.jobs:.1f} ms",
        "farm, processor time per job": f"{1e3 * found.client_cpu / load.jobs:.1f} ms",
    }
    return _NOTE.format(
        jobs=f"{load.jobs:,}",
        seconds=f"{load.seconds:g}",
        crashes=f"{load.crashes:.0%}",
        workers=load.workers,
        machine=f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}",
        cores=machine["cores"],
        table="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        kills=KILLS,
        command=command,
    )


_NOTE = """\
# The farm at scale, simulated

{jobs} jobs of {seconds} s over {workers} workers; {crashes} of attempts kill their worker with
SIGKILL half way. All on one machine ({machine}).

| | |
| --- | ---: |
{table}

Real: TLS both ways, the scheduler, {workers} worker processes (one process is the nanny of all and
starts those that died again), a child process per job, the executor, uploads into a local store,
records written once. Fake: the build, which sleeps; and that everything shares {cores} cores, which
the times above include. A job that kills {kills} workers is put into quarantine; none here does.

```sh
{command}
```
"""


def main(arguments: list[str]) -> int:
    """Runs a simulation and writes its note; 0 when every job was published once."""
    parser = argparse.ArgumentParser(prog="python -m builders.scale", description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=2.0, help="that a job works")
    parser.add_argument("-o", "--output", type=Path, help="the note")
    options = parser.parse_args(arguments)
    load = Load(jobs=options.jobs, workers=options.workers, seconds=options.seconds)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        found = simulate(load, Path(folder))
    text = to_markdown(found, f"python -m builders.scale {' '.join(arguments)}")
    if options.output:
        write_whole(options.output, text.encode())
    print(text)
    return 0 if found.published == load.jobs and not found.twice else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
