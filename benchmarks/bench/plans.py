"""Planning when nothing is to be done, beside ``make -q`` and ``snakemake -n``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.published_plan import publish_all
from support.wants_everything import everywhere

from benchmarks.bench.child import ROOT
from benchmarks.bench.ground import Ground
from benchmarks.bench.many_manifests import manifests_of
from benchmarks.bench.peers import own_command
from benchmarks.bench.results import Growth, Ratio, Section, Taken
from benchmarks.bench.turns import Way, command, in_turns
from zoo.repository.repository import Repository
from zoo.stores import LocalStore

ABOUT = (
    "Everything is up to date; whole processes, from start to exit. Ours plans for a repository on "
    "disk in which every engine is published: it compares keys, which are digests of all inputs, "
    "and reads verdicts. The peers compare times of as many files: every engine depends on the "
    "ONNX of its model, and that on a manifest. `snakemake -n` runs with `--rerun-triggers mtime`, "
    "its cheapest. Targets are those of the first 1, 12, 114 and 228 models, copies of the "
    "manifests under other names."
)
_MODELS, _QUICK = {1: 100, 12: 1000, 114: 10_000, 228: 20_000}, {1: 100, 12: 1000}
"""About how many targets some models have."""

_SLOW = 10_000  # targets from which on snakemake takes long
_SCRIPT = Path(__file__).with_name("plan_once.py")
_SNAKEFILE = """rule all:
    input: [f"engines/{i}" for i in range(TARGETS)]
rule engine:
    input: lambda wildcards: f"onnx/{int(wildcards.i) // EACH}"
    output: "engines/{i}"
    shell: "touch {output}"
rule onnx:
    input: "manifests/{i}"
    output: "onnx/{i}"
    shell: "touch {output}"
"""


def measure(ground: Ground) -> Section:
    """Measures the planners."""
    ratios: list[Ratio] = []
    grown: dict[str, dict[int, list[Taken]]] = {}
    snakemake, skipped = ground.peers.command("snakemake"), []
    if snakemake is None:
        skipped.append(ground.peers.lacks("snakemake"))
    for models, about in (_QUICK if ground.quick else _MODELS).items():
        folder = ground.folder(f"plan-{models}")
        targets = publish(folder / "store", models)
        write_tree(folder / "tree", models, targets)
        ways = _ways(folder, models, snakemake)
        rounds = ground.rounds(6 if about < _SLOW else 3)
        runs = in_turns(ways, rounds, warm=about < _SLOW)
        names = {"make": _make_version(), "snakemake": ground.peers.pinned("snakemake")}
        for way, peer in names.items():
            if way in runs:
                what, key = f"{targets:,} targets", f"{way}.{about}"
                ratios.append(Ratio.of(key, what, peer, runs["ours"], runs[way]))
        for way, taken in runs.items():
            grown.setdefault(way, {})[targets] = taken
    growths = [Growth.of(way, _OF[way], "targets", runs) for way, runs in grown.items()]
    return Section(
        name="plan", title="Planning with nothing to do", about=ABOUT, ratios=tuple(ratios),
        growths=tuple(growths), skipped=tuple(skipped),
    )  # fmt: skip


_OF = {"ours": "a plan", "make": "make -q", "snakemake": "snakemake -n"}


def publish(store: Path, models: int) -> int:
    """Writes a repository with all engines of some models; returns how many targets they serve."""
    with mock.patch.object(os, "fsync"):  # what is measured only reads
        return publish_all(Repository(LocalStore(store)), manifests_of(models), everywhere())


def write_tree(folder: Path, models: int, targets: int) -> None:
    """Writes the same work for the peers: files, a Makefile and a Snakefile."""
    each = -(-targets // models)
    for kind, count in (("manifests", models), ("onnx", models), ("engines", targets)):
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            (folder / kind / str(number)).touch()
        time.sleep(0.05)  # what depends on them has to be newer
    rules = [f"all: {' '.join(f'engines/{number}' for number in range(targets))}"]
    rules += [f"engines/{i}: onnx/{i // each}\n\ttouch $@" for i in range(targets)]
    rules += [f"onnx/{number}: manifests/{number}\n\ttouch $@" for number in range(models)]
    (folder / "Makefile").write_text("\n".join(rules) + "\n")
    snakefile = _SNAKEFILE.replace("TARGETS", str(targets)).replace("EACH", str(each))
    (folder / "Snakefile").write_text(snakefile)


def _ways(folder: Path, models: int, snakemake: Path | None) -> dict[str, Way]:
    tree, home = folder / "tree", folder / "home"
    homes = {"ZOO_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    environment = {**os.environ, **homes, "PYTHONPATH": str(ROOT)}
    ways: dict[str, Way] = {
        "ours": lambda: command(
            [sys.executable, _SCRIPT, folder / "store", str(models)], environment=environment
        )
    }
    if make := own_command("make"):
        outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")  # of make bench
        clean = {name: value for name, value in os.environ.items() if name not in outer}
        ways["make"] = lambda: command([make, "-q"], folder=tree, environment=clean)
    if snakemake:
        arguments: list[str | Path] = [
            snakemake,
            "-n",
            "--quiet",
            "all",
            "--rerun-triggers",
            "mtime",
        ]
        ways["snakemake"] = lambda: command(arguments, folder=tree, environment=environment)
    return ways


def _make_version() -> str:
    done = subprocess.run(["make", "--version"], capture_output=True, text=True)
    return done.stdout.partition("\n")[0]
