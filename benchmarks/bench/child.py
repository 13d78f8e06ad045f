"""A contestant in a process of its own, so that its peak of memory is its own.

The process prints ``ready NAME``, and for every line on stdin it does the work once and prints
``ready SECONDS MIB``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.bench.results import Taken
from zoo.util.errors import RunError

ROOT = Path(__file__).resolve().parents[2]
READY = "ready"


class Child:
    """A contestant, as a context manager.

    Args:
        arguments: The command that starts it.
        environment: Added to this process's environment.

    Attributes:
        name: What it calls itself: the peer and its version.
    """

    def __init__(
        self, arguments: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = ""
        self._arguments = [*map(str, arguments)]
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}

    def __enter__(self) -> Child:
        self._process = subprocess.Popen(
            self._arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=self._environment,
        )  # fmt: skip
        self.name = self._answer()
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self) -> Taken:
        """Does the work once."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds, mib = self._answer().split()
        return Taken(seconds=float(seconds), mib=float(mib))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(READY):
                return line.removeprefix(READY).strip()
        raise RunError(f"{' '.join(self._arguments)}: status {self._process.wait()}")
