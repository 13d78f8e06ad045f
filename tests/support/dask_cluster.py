"""A cluster on loopback: its processes are started as a maintainer starts them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.scale import started, wait_for_line
from builders.executors.dask.client import DaskExecutor
from support.paths import ROOT


class Cluster:
    """A scheduler, and workers that join it."""

    def __init__(self, folder: Path, certs: Path | None) -> None:
        self.folder, self.certs = folder, certs
        self._secured = ["--certs", str(certs)] if certs else []
        self._stack = ExitStack()
        self._count = 0

    def __enter__(self) -> Cluster:
        log = self.folder / "scheduler.log"
        arguments = ["scheduler", "--listen", "127.0.0.1:0", *self._secured]
        self.scheduler = self._stack.enter_context(started(arguments, log))
        self.address = wait_for_line(log, "scheduler: ")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def work(self, *options: str, python: str = sys.executable) -> str:
        """Starts workers; returns what they said when they had joined."""
        self._count += 1
        log = self.folder / f"workers{self._count}.log"
        arguments = ["worker", self.address, *self._secured, *options]
        self._stack.enter_context(started(arguments, log, python))
        wait_for_line(log, "worker ", 120)
        return log.read_text()

    def kill_scheduler(self) -> None:
        os.killpg(self.scheduler.pid, signal.SIGKILL)
        self.scheduler.wait()

    def executor(self, workers: int = 0, **options: float) -> DaskExecutor:
        """An executor that sees so many workers."""
        made = DaskExecutor(self.address, self.certs, **options)  # type: ignore[arg-type]
        deadline = time.monotonic() + 60
        while len(made.workers()) < workers and time.monotonic() < deadline:
            time.sleep(0.05)
        return made


def zoo_farm(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "builders.cli", *arguments],
        capture_output=True, text=True, cwd=ROOT, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip


def other_python() -> str | None:
    """Another CPython than this one that a worker may have; None where there is none."""
    named = [shutil.which(f"python3.{minor}") for minor in (10, 12, 13, 14)]
    kept = sorted(Path.home().glob(".pyenv/versions/3.1[0-9].*/bin/python"))
    kept += sorted(Path("/opt/hostedtoolcache/Python").glob("3.1[0-9].*/x64/bin/python"))  # GitHub
    ask = "import sys, venv; sys.exit(sys.version_info[:2] in ((3, %d), (3, 9)))"
    for python in [*filter(None, named), *map(str, kept)]:
        command = [python, "-c", ask % sys.version_info.minor]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return python
    return None
