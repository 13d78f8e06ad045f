"""Benchmarks reading a feature cache at random against its memory-mapped array, in one run.

``python -m benchmarks.reading`` writes a cache of random rows and reads all of it in random order,
in batches. The ways alternate, so that other load on the machine affects all of them alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthetic_cache import write_cache
from zoo.caft.cache import FeatureCache
from zoo.cli.main import Parser, run_cli
from zoo.client.host import describe_machine

Way = Callable[[FeatureCache, int], Iterator[int]]
"""Reads a cache in random batches of a size, and yields the number of rows of each."""


def _array(cache: FeatureCache, size: int) -> Iterator[int]:
    order = np.random.default_rng(0).permutation(len(cache))
    for start in range(0, len(cache), size):
        yield len(np.asarray(cache.features[order[start : start + size]]))


def _batches(cache: FeatureCache, size: int) -> Iterator[int]:
    for features, _ in cache.batches(size, seed=0):
        yield len(features)


def _loader(cache: FeatureCache, size: int) -> Iterator[int]:
    from torch.utils.data import DataLoader

    for features, _ in DataLoader(cache, batch_size=size, shuffle=True):  # type: ignore[arg-type]
        yield len(features)


WAYS: Mapping[str, Way] = {
    "features[random rows]": _array,
    "cache.batches": _batches,
    "torch DataLoader(cache)": _loader,
}


def measure(options: argparse.Namespace) -> int:
    """Prints the median rate of each way, and its ratio to that of the array."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = write_cache(Path(scratch) / "cache", options.rows, options.width)
        cache = FeatureCache(folder)
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(options.rounds + 1):
            for name, way in WAYS.items():
                started = time.perf_counter()
                assert sum(way(cache, options.batch)) == options.rows
                seconds[name].append(time.perf_counter() - started)
    _show(options, {name: times[1:] for name, times in seconds.items()})  # the first warms up
    return 0


def _show(options: argparse.Namespace, seconds: Mapping[str, list[float]]) -> None:
    machine = describe_machine()
    size = options.rows * options.width * 4 / 2**30
    print(
        f"{options.rows:,} rows of {options.width} float32 ({size:.1f} GiB), batches of "
        f"{options.batch}, {options.rounds} rounds; {machine.cpu}, {machine.cores} cores\n"
    )
    print("| way | rows/s | GB/s | of the array's rate (lowest to highest round) |")
    print("| --- | ---: | ---: | ---: |")
    array = seconds["features[random rows]"]
    for name, times in seconds.items():
        rate = options.rows / statistics.median(times)
        ratios = sorted(mine / own for mine, own in zip(array, times, strict=True))
        print(
            f"| {name} | {rate:,.0f} | {rate * options.width * 4 / 1e9:.2f} | "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )


def _parser() -> argparse.ArgumentParser:
    parser: Any = Parser(prog="benchmarks.reading", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=2048, help="features per row")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", help="folder of the cache, on the disk to measure")
    parser.set_defaults(command=measure)
    return parser  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.exit(run_cli(_parser(), sys.argv[1:]))
