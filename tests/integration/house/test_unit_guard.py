"""The guard of the unit tests sees sockets, programs and torch, and lets the rest pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT, TESTS

CONNECT = "socket.create_connection(('127.0.0.1', 9))"


def run_guarded(folder: Path, body: str, *, at_import: str = "") -> str:
    """Runs a test under the guard; returns pytest's output."""
    test = folder / "test_it.py"
    lines = "\n    ".join(body.splitlines())
    test.write_text(
        f"import os, socket, subprocess, sys, threading\n{at_import}\ndef test_it():\n    {lines}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "support.unit_guard", "-c", "/dev/null", str(test)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{TESTS}"},
    )
    assert done.returncode in (0, 1, 2), done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (CONNECT, "opens a connection"),
        (f"try: {CONNECT}\nexcept Exception: pass", "opens a connection"),
        (f"t = threading.Thread(target=lambda: {CONNECT})\nt.start(); t.join()", "a connection"),
        ("socket.socket().bind(('127.0.0.1', 0))", "opens a server"),
        ("subprocess.run(['/bin/true'])", "starts a program (/bin/true)"),
        ("subprocess.run('true', shell=True)", "starts a program"),
        ("subprocess.run([sys.executable, '-m', 'zoo.cli'])", "-m zoo.cli"),
        ("if os.fork() == 0: os._exit(0)", "starts a process (os.fork)"),
        ("import torch", "imports torch"),
    ],
)
def test_what_no_unit_test_may_do_fails_it(body: str, words: str, tmp_path: Path) -> None:
    out = run_guarded(tmp_path, body)
    assert "1 failed" in out
    assert words in out
    assert "tests/integration" in out


def test_a_module_that_imports_torch_is_not_collected(tmp_path: Path) -> None:
    out = run_guarded(tmp_path, "pass", at_import="import torch")
    assert "1 error" in out
    assert re.search(r"imports torch: .*tests/integration", out)


@pytest.mark.parametrize(
    "body",
    [
        "import json",
        "subprocess.run([sys.executable, '-c', ''], check=True)",
        "try: subprocess.run(['nvidia-smi'], capture_output=True)\nexcept FileNotFoundError: pass",
        "import urllib3",
    ],
)
def test_the_rest_passes(body: str, tmp_path: Path) -> None:
    assert "1 passed" in run_guarded(tmp_path, body)
