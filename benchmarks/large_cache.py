"""Measures the memory of writing, resuming, reading and training on large feature caches.

``python -m benchmarks.large_cache --rows 1000000 3000000`` runs each step in a process of its own
and prints its time and its peak of anonymous memory: pages of mapped files, which the system takes
back when it needs them, do not count. The memory that a step took before it began is subtracted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.synthetic_cache import SyntheticSource, identity, write_cache
from zoo.cli.main import Parser, run_cli
from zoo.client.host import describe_machine

_LOOKS_PER_SECOND = 50
CLASSES = 100

Step = Callable[[Path, int, int], None]
"""Works on a cache of a number of rows and a width."""


def _write(folder: Path, rows: int, width: int) -> None:
    write_cache(folder, rows, width, CLASSES)


def _resume(folder: Path, rows: int, width: int) -> None:
    """Looks every sample up, as the next pass over the same data set does."""
    from zoo.caft.recognise import Recogniser
    from zoo.caft.stamps import Stamps
    from zoo.caft.writer import CacheWriter

    writer = CacheWriter(folder, identity(width), "synthetic")
    stamps = Stamps(folder, writable=True)
    recogniser = Recogniser(folder, writer.old, stamps, writable=True, workers=2)
    assert next(recogniser.new_samples(SyntheticSource(rows, CLASSES)), None) is None
    assert recogniser.changes.kept == rows
    writer.close(complete=True)


def _read(folder: Path, rows: int, width: int) -> None:
    from zoo.caft.cache import FeatureCache

    cache = FeatureCache(folder)
    assert sum(len(labels) for _, labels in cache.batches(256, seed=0)) == rows
    assert Counter(map(type, cache.names())) == {str: rows}


def _train(folder: Path, rows: int, width: int) -> None:
    from zoo.caft.cache import FeatureCache
    from zoo.caft.settings import Settings
    from zoo.caft.train import train_head

    _, report = train_head(FeatureCache(folder), Settings(epochs=1))
    assert len(report.labels) == CLASSES


STEPS: Mapping[str, Step] = {
    "write": _write,
    "pass with nothing new": _resume,
    "read at random, and all names": _read,
    "train-head, one epoch": _train,
}


def _anonymous() -> int:
    """Returns the bytes of anonymous memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon")


def run_step(
    name: str, folder: Path, rows: int, width: int, steps: Mapping[str, Step] = STEPS
) -> None:
    """Runs a step in this process, and prints its seconds and bytes as JSON."""
    import torch

    torch.ones(1000, 1000).mm(torch.ones(1000, 1000))  # what its first use takes is not the step's
    before, peak, done = _anonymous(), 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not done.wait(1 / _LOOKS_PER_SECOND):
            peak = max(peak, _anonymous())

    thread = threading.Thread(target=look)
    thread.start()
    started = time.perf_counter()
    try:
        steps[name](folder, rows, width)
    finally:
        seconds = time.perf_counter() - started
        done.set()
        thread.join()
    print(json.dumps([seconds, peak - before]))


def measure(options: argparse.Namespace) -> int:
    """Prints a table of the steps for each number of rows."""
    machine = describe_machine()
    print(f"{options.width} float32 per row; {machine.cpu}, {machine.cores} cores\n")
    print("| rows | step | seconds | rows/s | memory, MiB | bytes per row |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            for name in STEPS:
                code = f"from benchmarks.large_cache import *; run_step({name!r}, Path({scratch!r})"
                code += f" / 'cache', {rows}, {options.width})"
                done = subprocess.run(
                    [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True
                )
                seconds, memory = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"| {rows:,} | {name} | {seconds:.1f} | {rows / seconds:,.0f} | "
                    f"{memory / 2**20:,.0f} | {memory / rows:.1f} |",
                    flush=True,
                )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser: Any = Parser(prog="benchmarks.large_cache", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 3_000_000])
    parser.add_argument("--width", type=int, default=64, help="features per row")
    parser.add_argument("--scratch", help="folder of the caches, on a disk with room")
    parser.set_defaults(command=measure)
    return parser  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.exit(run_cli(_parser(), sys.argv[1:]))
