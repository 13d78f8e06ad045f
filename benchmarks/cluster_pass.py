"""Benchmarks a feature pass over a Dask cluster on this machine against one without it.

The ways alternate: a pass in this process, over one worker, over two, and over two workers that
don't see the files, so that these are sent. The rows of all are compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.feature_pass import jpegs, write_photos
from benchmarks.scale import cpu_seconds, started, wait_for_line
from builders.executors.dask.certificates import make_certs
from zoo.caft import FeatureCache, cache_features
from zoo.caft.sample import Sample
from zoo.caft.workers import Workforce, open_workforce
from zoo.cli.main import Parser, run_cli
from zoo.cli.support import add_selection, add_store, client_of
from zoo.client.host import describe_machine
from zoo.inference.extractor import Extractor, load
from zoo.util.errors import ClusterError

_SIZE = (500, 375)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a pass took, in seconds.

    Attributes:
        seconds: Its duration.
        cpu: CPU time of all its processes.
        around: CPU time of those that are not an engine's: the pass, Dask's scheduler and workers.
    """

    seconds: float
    cpu: float
    around: float


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster on this machine.

    Attributes:
        workforce: Its workers.
        pids: The processes that were started.
    """

    workforce: Workforce
    pids: tuple[int, ...]

    def processes(self) -> list[int]:
        """Returns these processes and their descendants."""
        found = list(self.pids)
        for pid in found:
            for listed in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, listed.read_text().split())
        return found


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to make a pass: over these samples, in this process or on workers."""

    data: Path | InMemory
    extractor: Extractor
    cluster: Cluster | None = None

    def run(self, folder: Path, batch: int | None) -> Taken:
        """Makes a pass into a new cache; returns what it took."""
        before, begun = self._cpu(), time.perf_counter()
        workforce = self.cluster.workforce if self.cluster else None
        cache_features(self.data, self.extractor, folder, batch=batch, cluster=workforce)
        seconds = time.perf_counter() - begun
        total, of_engines = (
            after - first for after, first in zip(self._cpu(), before, strict=True)
        )
        return Taken(seconds=seconds, cpu=total, around=total - of_engines)

    def _cpu(self) -> tuple[float, float]:
        """Returns the CPU seconds so far: in total, and of the processes of engines."""
        total, of_engines = time.process_time(), 0.0
        for pid in self.cluster.processes() if self.cluster else ():
            seconds = cpu_seconds(pid)
            total += seconds
            if b"zoo.caft.engine_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                of_engines += seconds
        return total, of_engines if self.cluster else total


class InMemory:
    """The same photos, their files in memory: what workers can't read, and are sent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[Sample]:
        for path in sorted(self._folder.rglob("*.jpg")):
            name = str(path.relative_to(self._folder))
            yield Sample(name=name, label=path.parent.name, read=path.read_bytes, rereadable=True)


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """Runs a scheduler and workers, with TLS, on this machine."""
    folder.mkdir()
    certs, log = folder / "certs", folder / "scheduler.log"
    make_certs(certs)
    secured = ["--certs", str(certs)]
    with started(["scheduler", "--listen", "127.0.0.1:0", *secured], log) as scheduler:
        address = wait_for_line(log, "scheduler: ")
        log = folder / "workers.log"
        with started(["worker", address, *secured, "--cpu-slots", str(workers)], log) as worker:
            wait_for_line(log, "worker ", 120)
            with open_workforce(address, certs, say=partial(print, file=sys.stderr)) as workforce:
                deadline = time.monotonic() + 60
                while len(workforce.look()) < workers:
                    if time.monotonic() > deadline:
                        raise ClusterError(f"fewer than {workers} workers started")
                    time.sleep(0.2)
                yield Cluster(workforce=workforce, pids=(scheduler.pid, worker.pid))


def measure(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints its table."""
    client = client_of(options)
    chosen = {
        "target": options.target, "precision": options.precision,
        "allow_pending": options.allow_pending, "allow_seeded": options.allow_seeded,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as opened:
        folder = Path(scratch)
        photos = write_photos(folder / "photos", jpegs(None, options.images, _SIZE))
        here = opened.enter_context(load(options.model, client=client, **chosen))
        one, two = (opened.enter_context(cluster(folder / f"of{n}", n)) for n in (1, 2))
        on_one, on_two = (
            each.workforce.choose(options.model, client, **chosen) for each in (one, two)
        )
        ways = {
            "in this process": Way(data=photos, extractor=here),
            "one worker": Way(data=photos, extractor=on_one, cluster=one),
            "two workers": Way(data=photos, extractor=on_two, cluster=two),
            "two workers, files sent": Way(data=InMemory(photos), extractor=on_two, cluster=two),
        }
        taken = _in_turns(ways, folder, options.batch, options.rounds)
        _check_equal([folder / f"{name}-0" for name in ways])
    machine = describe_machine()
    print(
        f"{options.model}, {here.record.targets[0]}, {options.images} images, batch "
        f"{options.batch or here.batch}, median (lowest to highest) of {options.rounds} rounds; "
        f"{machine.cpu}, {machine.cores} cores\n"
    )
    print("| way | images/s | of the first, round by round | CPU ms per image | not the engine's |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, rounds in taken.items():
        rates = [options.images / each.seconds for each in rounds]
        pairs = zip(taken["in this process"], rounds, strict=True)
        ratios = [first.seconds / each.seconds for first, each in pairs]
        cpu = [1000 * each.cpu / options.images for each in rounds]
        around = [1000 * each.around / options.images for each in rounds]
        numbers = (_spread(rates, 1), _spread(ratios, 2), _spread(cpu, 1), _spread(around, 2))
        print(f"| {name} | {' | '.join(numbers)} |")
    return 0


def _in_turns(
    ways: dict[str, Way], folder: Path, batch: int | None, rounds: int
) -> dict[str, list[Taken]]:
    """Returns what each way took in each round, after one that is not counted."""
    rounds_of: dict[str, list[Taken]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            taken = way.run(folder / f"{name}-{number}", batch)
            if number:
                rounds_of[name].append(taken)
            print(f"{name}: {taken.seconds:.1f} s", file=sys.stderr)
    return rounds_of


def _check_equal(caches: list[Path]) -> None:
    """Checks that the rows of all caches are the same to the bit."""
    first, *others = (np.asarray(FeatureCache(cache).features) for cache in caches)
    for other in others:
        np.testing.assert_array_equal(first, other)


def _spread(values: list[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def main() -> int:
    """Entry point of ``python -m benchmarks.cluster_pass``."""
    parser = Parser(prog="python -m benchmarks.cluster_pass", description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--images", type=_positive, default=512, help="number of images")
    parser.add_argument("--batch", type=_positive, help="batch size")
    parser.add_argument("--rounds", type=_positive, default=3, help="number of rounds")
    add_store(parser)
    add_selection(parser)
    command: Callable[[argparse.Namespace], int] = measure
    parser.set_defaults(command=command)
    return run_cli(parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
