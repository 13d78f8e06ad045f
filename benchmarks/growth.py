"""Measures how publishing, garbage collection, mirroring and the catalog grow with a repository.

Repositories of some sizes are built and signed; their engines are made up and small. Each step runs
in a process of its own, whose processor time and memory are printed, with the exponent of growth:
1 is linear, 2 quadratic. Run it with the folder ``tests`` on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from support import records
from support.signed_repository import Signed

from builders.publish.garbage import collect
from zoo.catalog.site import build_site
from zoo.client.mirror import Filter, mirror
from zoo.schema.records import BuildRecord
from zoo.stores import LocalStore

_FORK = multiprocessing.get_context("fork")
LINES = 20
"""Engines of a model, each for another version of the runtime."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a step took.

    Attributes:
        seconds: Time of a processor.
        wall: Seconds until it ended.
        memory: Bytes that it needed at most beyond those before it.
    """

    seconds: float
    wall: float
    memory: int


def engine(signed: Signed, model: int, line: int) -> BuildRecord:
    """Builds one of the engines of a model."""
    content = f"engine {model} {line}".encode()
    inputs = records.build_inputs(
        model=f"m{model}",
        onnx=records.blob(f"onnx {model}".encode()).sha256,
        toolchain=records.toolchain("ort", f"1.{10 + line}.0"),
    )
    return signed.build(f"m{model}", content, inputs=inputs)


def steps(signed: Signed, engines: int) -> dict[str, Callable[[], object]]:
    """Returns what is measured, in the order in which it is done."""
    models = engines // LINES
    folder, store = signed.folder, signed.store

    def build() -> None:
        for model in range(models):
            signed.propose(*(engine(signed, model, line) for line in range(LINES)))

    def publish() -> None:
        assert not signed.publish().refused

    def publish_one() -> None:
        signed.propose(engine(signed, 0, LINES))
        assert not signed.publish().refused

    def mirror_to() -> None:
        mirror(signed.client("mirroring"), LocalStore(folder / "mirror"), Filter())

    def sweep() -> None:
        now = datetime.now(timezone.utc)
        assert collect(signed.client("sweeper"), timedelta(days=7), now, delete=True).kept

    def catalog() -> None:
        build_site(signed.repository, folder / "site")

    def pull() -> None:
        signed.pulled(signed.client("reader"), f"m{models // 2}")

    def list_models() -> None:
        assert len(signed.client("lister").index().models) == models

    assert store
    return {
        "build and propose": build,
        "publish all": publish,
        "publish one more engine": publish_one,
        "renew every night (`publish --refresh`)": lambda: signed.publish(refresh=True),
        "mirror everything": mirror_to,
        "mirror again, nothing new": mirror_to,
        "`gc --delete`": sweep,
        "`gc --delete` again": sweep,
        "catalog": catalog,
        "catalog again, nothing new": catalog,
        "list the models, first contact": list_models,
        "pull one engine, first contact": pull,
    }


def measured(step: Callable[[], object]) -> Cost:
    """Runs a step in a process of its own."""
    here, there = _FORK.Pipe()
    process = _FORK.Process(target=_measure, args=(step, there))
    process.start()
    there.close()
    try:
        cost: Cost = here.recv()
    finally:
        process.join()
    return cost


def _measure(step: Callable[[], object], answer: Any) -> None:
    before, wall, work = _resident(), time.perf_counter(), time.process_time()
    step()
    work, wall = time.process_time() - work, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    answer.send(Cost(seconds=work, wall=wall, memory=max(0, peak - before)))


def _resident() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) << 10


def exponent(first: float, last: float, ratio: float) -> float:
    """Returns the power of the size with which a cost grows, 0 for a cost of almost nothing."""
    return math.log(last / first) / math.log(ratio) if min(first, last) > 0 else 0.0


def main() -> None:
    """Measures the steps on repositories of each size, and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--engines", type=int, nargs="+", default=[1000, 10_000])
    options = parser.parse_args()
    costs: list[dict[str, Cost]] = []
    for engines in options.engines:
        with tempfile.TemporaryDirectory() as scratch:
            signed = Signed(Path(scratch) / "growth", bins=16)
            found = {}
            for name, step in steps(signed, engines).items():
                found[name] = measured(step)
                print(f"{engines:,} {name}: {found[name]}", file=sys.stderr, flush=True)
            costs.append(found)
    _print(options.engines, costs)


def _print(engines: list[int], costs: list[dict[str, Cost]]) -> None:
    heads = [f"{count:,}: seconds | MiB" for count in engines]
    print(f"| | {' | '.join(heads)} | exponent of time | of memory |")
    print("| --- |" + " ---: |" * (2 * len(engines) + 2))
    for name, first in costs[0].items():
        cells = [f"{one[name].seconds:.2f} | {one[name].memory / 2**20:.0f}" for one in costs]
        last, ratio = costs[-1][name], engines[-1] / engines[0]
        cells.append(f"{exponent(first.seconds, last.seconds, ratio):.2f}")
        cells.append(f"{exponent(first.memory, last.memory, ratio):.2f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
