"""Times cold runs of the farm in turns: another checkout and this one, or ``JOBS=1`` and automatic.

Each run exports with seeded weights, builds, verifies and measures into a new repository, as
``make zoo WEIGHTS=seeded GPU=cpu PRECISION=fp32`` does. Who begins changes from round to round. A
machine that others use makes wall time mean little; processor seconds and the load are stated
beside it. Ends with status 1 if the two sides export other bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.fake_nights import CPU, NO_IMAGES, Builder, Desk, places
from support.records import toolchain

from builders.executors import Outcome
from builders.jobs.messages import ExportedFile, ExportJob, ExportOutput, Job
from builders.jobs.progress import Display, Report
from builders.paths import ROOT
from builders.planning.request import Request
from builders.run.farm import Farm
from builders.weights.mode import WeightsMode
from zoo.repository.repository import Repository
from zoo.schema.manifest import load_manifest
from zoo.schema.precisions import Precision
from zoo.stores import open_store

_MODELS = (
    "mobilenetv3_small_100,efficientnet_lite0,efficientnet_b0,resnet50,densenet121,deit3_small"
)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two ways to run.

    Attributes:
        name: As the table calls it.
        checkout: Folder of the checkout that runs.
        jobs: ``JOBS=``; empty for automatic, or for a checkout that has no such option.
    """

    name: str
    checkout: Path
    jobs: str

    def command(self, models: str, store: Path) -> list[str]:
        """Returns the command of a run."""
        python = self.checkout / ".venv" / "bin" / "python"
        return [
            str(python if python.exists() else sys.executable), "-m", "builders.cli", "zoo",
            "--gpu", "cpu", "--precision", "fp32", "--weights", "seeded", "--models", models,
            "--store", str(store), "--site", str(store.with_name("site")),
            *(["--jobs", self.jobs] if self.jobs else []),
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Run:
    """A cold run.

    Attributes:
        wall: Seconds.
        processor: Seconds of all processes.
        load: Processes of the whole machine that ran or waited, over the last minute of it.
        bytes_of: SHA-256 of the ONNX and of the seeded state, by model.
    """

    wall: float
    processor: float
    load: float
    bytes_of: dict[str, tuple[str, str]]


def run(side: Side, models: str, folder: Path) -> Run:
    """Runs a side once.

    Raises:
        RuntimeError: It fails; the text ends with what it said.
    """
    store = folder / "store"
    begun, log = time.perf_counter(), folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            side.command(models, store),
            cwd=side.checkout, env={**os.environ, "PYTHONPATH": str(side.checkout)},
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{side.name}: {log.read_text(errors='replace')[-2000:]}")
    return Run(
        wall=time.perf_counter() - begun,
        processor=used.ru_utime + used.ru_stime,
        load=os.getloadavg()[0],
        bytes_of=_bytes_of(store),
    )


def _bytes_of(store: Path) -> dict[str, tuple[str, str]]:
    found = {}
    for path in sorted(store.glob("exports/*/*.json")):
        model = path.parent.name
        (state,) = store.glob(f"states/{model}/*.json")
        onnx, seeded = (json.loads(file.read_bytes()) for file in (path, state))
        found[model] = (onnx["onnx"]["sha256"], seeded["state"]["sha256"])
    return found


def in_turns(sides: tuple[Side, Side], models: str, rounds: int) -> tuple[list[Run], list[Run]]:
    """Runs two sides alternately; prints each run."""
    runs: tuple[list[Run], list[Run]] = ([], [])
    print("| round | | wall, s | processor, s | load |\n| --- | --- | --- | --- | --- |")
    for number in range(rounds):
        turns = list(zip(sides, runs, strict=True))
        for side, done in reversed(turns) if number % 2 else turns:
            with tempfile.TemporaryDirectory() as folder:
                done.append(run(side, models, Path(folder)))
            last = done[-1]
            print(
                f"| {number + 1} | {side.name} | {last.wall:.1f} | {last.processor:.1f} | "
                f"{last.load:.1f} |",
                flush=True,
            )
    return runs


def differing(first: Run, second: Run) -> list[str]:
    """Returns the models whose exports have other bytes, or that only one side has."""
    models = first.bytes_of.keys() | second.bytes_of.keys()
    return sorted(m for m in models if first.bytes_of.get(m) != second.bytes_of.get(m))


class Instant(Builder):
    """An executor whose jobs take no time: what remains is the farm's own work."""

    exports_at_once = 2

    def run(self, job: Job, folder: Path, report: Report) -> Outcome:
        """Returns at once with files of a few bytes."""
        if not isinstance(job, ExportJob):
            return super().run(job, folder, report)
        self.jobs += 1
        (folder / "fp32.onnx").write_text(job.manifest.id)
        (folder / "golden").write_text("golden")
        made = ExportedFile(
            inputs=job.inputs["fp32"], onnx="fp32.onnx", parameters=1, largest_tensor=1, check={}
        )
        exported = ExportOutput(golden="golden", state=None, exports=(made,), cost={})
        return Outcome(result=exported, folder=folder)


def added(published: int, folder: Path) -> tuple[float, float, int]:
    """Adds a model to a repository whose models are up to date.

    Args:
        published: Number of models that are published already.
        folder: An empty folder.

    Returns:
        Seconds and processor seconds of the run in which the model is new, and its jobs.
    """
    manifest = load_manifest(ROOT / "manifests" / "mobilenetv3_small_100.toml")
    manifests = {
        name: manifest.model_copy(update={"id": name})
        for name in (f"model{number}" for number in range(published + 1))
    }
    repository = Repository(open_store(str(folder / "store")))
    request = Request(
        manifests=manifests, manifest_dir=ROOT / "manifests",
        places=places({CPU: toolchain("ort", "1.32.0")}),
        precisions=(Precision.FP32,), weights=WeightsMode.SEEDED,
        calibration=NO_IMAGES,
        failures=folder / "_failures",
    )  # fmt: skip
    instant, display = Instant(), Display(Console(quiet=True))
    desk = Desk(repository)  # checks no engine and signs nothing, which is work on the new one
    *earlier, _ = manifests
    if earlier:
        before = replace(request, manifests={name: manifests[name] for name in earlier})
        Farm(repository, instant, display, desk).run(before)
    begun, processor, jobs = time.perf_counter(), time.process_time(), instant.jobs
    summary = Farm(repository, instant, display, desk).run(request)
    assert not summary.failed, summary.failed
    return (
        time.perf_counter() - begun,
        time.process_time() - processor,
        instant.jobs - jobs,
    )


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.farm_speed", description=__doc__)
    parser.add_argument("--models", default=_MODELS, help="ids, separated by commas")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT",
        help="another checkout, with its own .venv or this Python; without it, JOBS=1 of this one",
    )  # fmt: skip
    parser.add_argument("--jobs", default="", help="JOBS= of this checkout (default: automatic)")
    parser.add_argument(
        "--added", type=int, metavar="N",
        help="only time the farm's own work on a model that is new, alone and beside N models that "
        "are up to date, with jobs that take no time",
    )  # fmt: skip
    options = parser.parse_args()
    if options.added is not None:
        for published in (0, options.added):
            with tempfile.TemporaryDirectory() as folder:
                wall, processor, jobs = added(published, Path(folder))
            print(
                f"1 new model beside {published}: {jobs} jobs, {wall:.2f} s, "
                f"{processor:.2f} s of a processor"
            )
        return 0
    other = (
        Side(name=str(options.against), checkout=options.against.resolve(), jobs="")
        if options.against
        else Side(name="JOBS=1", checkout=ROOT, jobs="1")
    )
    here = Side(name=f"JOBS={options.jobs or 'automatic'}", checkout=ROOT, jobs=options.jobs)
    before, after = in_turns((other, here), options.models, options.rounds)
    pairs = list(zip(before, after, strict=True))
    for what in ("wall", "processor"):
        ratios = [getattr(second, what) / getattr(first, what) for first, second in pairs]
        low, high = min(ratios), max(ratios)
        print(f"{what}: {statistics.median(ratios):.2f} of {other.name} ({low:.2f} to {high:.2f})")
    different = differing(before[0], after[0])
    print(f"other bytes: {', '.join(different) or 'none'}, of {len(after[0].bytes_of)} models")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
