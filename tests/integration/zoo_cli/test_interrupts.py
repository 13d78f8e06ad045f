"""Ctrl-C at any moment of a command: no traceback, a status that says so, nothing half written."""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.caft import write_cache
from support.goldens import assert_golden
from support.paths import ROOT

from zoo.cli.main import run_cli
from zoo.util.errors import MissingPackageError
from zoo.util.interrupts import INTERRUPTED

# Stands for a user who presses Ctrl-C while a module is imported, or while the process ends.
PRESSED = """
import atexit, os, signal, sys

moment, entry, handler = sys.argv[1:4]
del sys.argv[1:4]
signal.signal(signal.SIGINT, getattr(signal, handler))
press = lambda: os.kill(os.getpid(), signal.SIGINT)

class Finder:
    def find_spec(self, name, path, target=None):
        if name == moment:
            press()

sys.meta_path.insert(0, Finder())
if moment == "exit":
    atexit.register(press)
if moment == "to JSON":
    from zoo.schema.manifest import Preprocess

    class Omitted(frozenset):
        def __and__(self, others):
            press()
            return frozenset.__and__(self, others)

    Preprocess.omitted = Omitted(Preprocess.omitted)
module = __import__(entry, fromlist=["main"])
sys.exit(module.main())
"""


def pressed(
    moment: str, *command: str, cwd: Path, handler: str = "default_int_handler"
) -> subprocess.CompletedProcess[str]:
    entry = {"zoo": "zoo.cli.entry", "zoo-farm": "builders.cli.entry"}[command[0]]
    return subprocess.run(
        [sys.executable, "-c", PRESSED, moment, entry, handler, *command[1:]],
        capture_output=True, text=True, cwd=cwd, timeout=120,
    )  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)
    return write_cache(tmp_path / "cache", rows, ["a", "b"] * 15)


@pytest.mark.parametrize(
    ("command", "moments"),
    [
        ("zoo cache ls", ["zoo.cli.main", "pydantic", "zoo.cli.cache", "exit"]),
        ("zoo-farm targets", ["builders.cli.main", "pydantic", "builders.cli.tables", "exit"]),
    ],
)
def test_the_signal_ends_what_starts_or_ends(command: str, moments: list[str]) -> None:
    for moment in moments:
        done = pressed(moment, *command.split(), cwd=ROOT)
        killed, ended = (-signal.SIGINT, ""), (INTERRUPTED, "interrupted\n")
        assert (done.returncode, done.stderr) in (killed, ended), moment


@pytest.mark.parametrize(
    ("moment", "command"),
    [
        ("zoo.caft.cache", "export-features cache -o out/rows.npz"),
        ("zoo.caft.tables", "export-features cache -o out/rows.npz"),
        ("pyarrow", "export-features cache -o out/rows.parquet"),
        ("to JSON", "export-features cache -o out/rows.parquet"),
        ("zoo.caft.neighbours", "duplicates cache -o out/groups.csv"),
        ("sklearn.manifold", "map cache -o out/map.html"),
        ("zoo.caft.train", "train-head cache -o out/head.safetensors"),
        ("zoo.caft.neighbours", "similar cache photo.jpg"),
        ("shtab", "completion bash"),
    ],
)
def test_a_command_that_does_not_resume(
    moment: str, command: str, cache: Path, tmp_path: Path
) -> None:
    done = pressed(moment, "zoo", *command.split(), cwd=tmp_path)
    assert done.returncode == 130, done.stderr
    assert_golden("client/interrupted", done.stderr)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_command_that_resumes(tmp_path: Path) -> None:
    command = shlex.split("features . --model m -o c")
    done = pressed("zoo.caft.features", "zoo", *command, cwd=tmp_path)
    assert done.returncode == 130, done.stderr
    assert_golden("caft/interrupted", done.stderr.strip())


def test_an_ignored_signal_stays_ignored() -> None:
    """As of jobs that a shell runs in the background."""
    done = pressed("pydantic", "zoo", "cache", "ls", cwd=ROOT, handler="SIG_IGN")
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("turned_into", [ImportError, MissingPackageError, OSError])
def test_what_libraries_turn_it_into(
    turned_into: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    """As ONNX Runtime's import does, which is in C."""

    def command(options: argparse.Namespace) -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise turned_into("initialization failed") from error

    parser = argparse.ArgumentParser()
    parser.set_defaults(command=command)
    assert run_cli(parser, []) == 130
    assert_golden("client/interrupted", capsys.readouterr().err)


def test_other_faults_are_not_hidden() -> None:
    def command(options: argparse.Namespace) -> int:
        raise ZeroDivisionError

    parser = argparse.ArgumentParser()
    parser.set_defaults(command=command)
    with pytest.raises(ZeroDivisionError):
        run_cli(parser, [])
