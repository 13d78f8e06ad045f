"""Makes ``repository-8b658fa.tar.xz``: a small repository, as the farm of commit 8b658fa makes it.

    git worktree add BASE 8b658fa
    .venv/bin/python tests/data/make_repository_8b658fa.py BASE tests/data/repository-8b658fa.tar.xz

Every record in it was written by that commit's own commands, on seeded weights of timm's smallest
network. ``tests/integration/run/test_old_repository.py`` runs today's farm on it. The
archive holds ``store`` and ``store.keys`` (which sign nothing else), ``manifests``, and
``requests.json``: the command lines
that had nothing left to do, each with its exit status and the last
lines that commit 8b658fa printed for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

MANIFEST = """\
id = "{name}"
family = "test"
arch = "test_convnext"
tag = "r160_in1k"
licence = "apache-2.0"
origin = "https://huggingface.co/timm/test_convnext.r160_in1k"
precisions = ["fp32", "fp16", "int8"]

[weights]
source = "hub"
repository = "timm/test_convnext.r160_in1k"

[backbone]
cut = "pooled"
feature_dim = 64

[preprocess]
input_size = {size}
size_of = "train"
size_reason = "small, so that a test is quick"
crop = 0.95
interpolation = "bicubic"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]

[batch]
cpu = {{ min = 1, opt = 2, max = {largest} }}
gpu = [{{ min = 1, opt = 4, max = 8 }}]
{more}
[catalog]
title = "{name}"
summary = "timm's smallest network."
characteristics = ["64 features"]
use_case = "Tests"
"""

IMPOSSIBLE_INT8 = "\n[tolerance.int8]\nrelative_error = 0.00000001\n"
IMPOSSIBLE_FP32 = "\n[tolerance.fp32]\nrelative_error = 0.00000001\n"

SIZES = {"current": 64, "replaced": 32, "disabled": 40, "struck": 48, "withdrawn": 56, "missed": 72}
"""Of the images: another for each, so that no two have the same engine, which has one fate."""

FP32 = ("--gpu", "cpu", "--precision", "fp32")
REQUESTS = (
    ("--models", "current", "--gpu", "cpu", "--precision", "fp32,int8"),
    ("--models", "current", "--gpu", "sm86", "--precision", "fp16"),
    ("--models", "replaced", *FP32),
    ("--models", "disabled", "--gpu", "cpu", "--precision", "fp32,int8"),
    ("--models", "struck", *FP32),
    ("--models", "withdrawn", *FP32),
    ("--models", "missed", *FP32),
)


class Farm:
    """The farm of a checkout, on a repository in a folder.

    Args:
        checkout: The checkout of commit 8b658fa.
        folder: Gets the store, its keys and the manifests.
    """

    def __init__(self, checkout: Path, folder: Path) -> None:
        self._checkout, self._folder = checkout, folder
        (folder / "manifests").mkdir()

    def write(self, name: str, largest: int = 4, more: str = "") -> None:
        """Writes a manifest."""
        text = MANIFEST.format(name=name, size=SIZES[name], largest=largest, more=more)
        (self._folder / "manifests" / f"{name}.toml").write_text(text)

    def zoo(self, *request: str, command: str = "zoo", status: int = 0) -> list[str]:
        """Runs ``zoo`` or ``nightly``; returns the lines it printed."""
        site = str(self._folder / "site")
        return self.run(command, "--weights", "seeded", "--site", site, *request, status=status)

    def run(self, command: str, *arguments: str, status: int = 0) -> list[str]:
        """Runs a command of the farm and checks its exit status."""
        manifests, store = self._folder / "manifests", self._folder / "store"
        done = subprocess.run(
            [sys.executable, "-m", "builders.cli", "--manifests", str(manifests), command,
             "--store", str(store), *arguments],
            capture_output=True, text=True, cwd=self._checkout,
            env={**os.environ, "PYTHONPATH": str(self._checkout), "COLUMNS": "200",
                 "ZOO_HOME": str(self._folder / "home")},
        )  # fmt: skip
        print(done.stdout, done.stderr)
        if done.returncode != status:
            raise SystemExit(f"{command} {arguments}: exit status {done.returncode}")
        return done.stdout.splitlines()


def fill(farm: Farm) -> None:
    """Makes what earlier runs leave: an engine of each fate."""
    farm.write("current")
    farm.zoo(*REQUESTS[0])
    farm.zoo(*REQUESTS[1])

    farm.write("replaced", largest=2)
    farm.zoo("--models", "replaced", *FP32)
    farm.write("replaced", largest=4)  # another build key: the engine before is superseded
    farm.zoo("--models", "replaced", *FP32)

    farm.write("disabled", more=IMPOSSIBLE_INT8)
    farm.zoo("--models", "disabled", "--gpu", "cpu", "--precision", "fp32,int8")

    farm.write("struck", largest=2)
    farm.zoo("--models", "struck", *FP32)  # its export, so that the nights fail at the build
    farm.write("struck", largest=4)
    for night in ("one", "two"):
        limited = ("--models", "struck", *FP32, "--timeout", "0.001", "--night", night)
        farm.zoo(*limited, command="nightly", status=1)

    farm.write("withdrawn")
    farm.zoo("--models", "withdrawn", *FP32)
    farm.run("withdraw", "withdrawn", "cpu-ort1.32-fp32", "--reason", "a test says so")

    farm.write("missed")
    farm.zoo("--models", "missed", *FP32)
    farm.write("missed", more=IMPOSSIBLE_FP32)
    farm.zoo("--models", "missed", *FP32, status=1)


def main(checkout: Path, archive: Path) -> None:
    """Makes the repository, runs every request again, and packs it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        farm = Farm(checkout.resolve(), folder)
        fill(farm)
        stored = sorted(str(path) for path in (folder / "store").rglob("*"))
        said = []
        for request in REQUESTS:
            status = 1 if request[1] in ("withdrawn", "missed") else 0
            lines = farm.zoo(*request, status=status)
            last = [line for line in lines if line.startswith((f"{folder}/store: ", "FAILED"))]
            shown = [line.replace(f"{folder}/", "") for line in last]
            said.append({"request": request, "status": status, "lines": shown})
        if stored != sorted(str(path) for path in (folder / "store").rglob("*")):
            raise SystemExit("a request that has nothing left to do changed the store")
        (folder / "requests.json").write_text(json.dumps(said, indent=1) + "\n")
        (folder / "store.keys" / "seen.json").unlink()  # it names this folder
        shutil.rmtree(folder / "store" / "runs")  # what nights report names this machine's paths
        _pack(folder, archive)


def _pack(folder: Path, archive: Path) -> None:
    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for name in ("store", "store.keys", "manifests", "requests.json"):
            packed.add(folder / name, name, filter=plain)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
