"""How time and memory grow with ten times the records and ten times the rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.bench.child import ROOT
from benchmarks.bench.ground import Ground
from benchmarks.bench.growth_steps import RECORD_STEPS, ROW_STEPS
from benchmarks.bench.results import Growth, Section, Taken
from benchmarks.bench.turns import in_turns

ABOUT = (
    "Each step in a process of its own, on made-up work of two sizes in turns. The exponent is 1 "
    "if ten times the work takes ten times as long, and 2 if it takes a hundred times. Memory is "
    "what a step adds to its process after the imports. Targets are in the section about planning, "
    "images in that about the feature pass."
)


def measure(ground: Ground) -> Section:
    """Measures all steps."""
    rows = (2_000, 20_000) if ground.quick else (20_000, 200_000)
    models = (5, 50) if ground.quick else (50, 500)
    growths = [_of_step(ground, name, "rows", rows) for name in ROW_STEPS]
    growths += [_of_step(ground, name, "records", models) for name in RECORD_STEPS]
    return Section(name="growth", title="Ten times the work", about=ABOUT, growths=tuple(growths))


def _of_step(ground: Ground, name: str, unit: str, sizes: tuple[int, int]) -> Growth:
    if name == "near-duplicates":  # compares all pairs, by design
        sizes = (sizes[0] // 10, sizes[1] // 10)
    folders = {size: ground.folder(f"growth-{unit}-{size}") for size in sizes}
    ways = {str(size): lambda size=size: _run(name, folders[size], size) for size in sizes}
    runs = in_turns(ways, ground.rounds(3, 1), warm=False)
    each = _ENGINES if unit == "records" else 1
    return Growth.of(
        name.replace(" ", "-").replace(",", ""), name, unit,
        {int(size) * each: taken for size, taken in runs.items()},
    )  # fmt: skip


_ENGINES = 20  # of each model in publish_many


def _run(name: str, folder: Path, size: int) -> Taken:
    code = (
        "from benchmarks.bench.growth_steps import *; "
        f"run_step({name!r}, Path({str(folder)!r}), {size}, 64, STEPS)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, cwd=ROOT
    )
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return Taken(seconds=seconds, mib=max(memory, 2**20) / 2**20)
