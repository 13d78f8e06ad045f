"""Starts workers as copies of one process that has imported PyTorch.

:mod:`builders.worker.warm` is that process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import IO, Protocol

from builders.jobs import output_files
from builders.paths import ROOT
from zoo.util.strenum import StrEnum

_COMMAND = (sys.executable, "-m", "builders.worker.warm")

CAN_COPY = sys.platform == "linux"
"""Whether a process may fork after it has loaded PyTorch. On macOS system libraries forbid it."""


class Copies(StrEnum):
    """What the copies of a process do: export models, or measure the speed of engines.

    How threads wait is read from the environment when PyTorch is loaded. It differs between the
    two, so they are copies of different processes.
    """

    EXPORTS = "exports"
    SPEEDS = "speeds"


class Worker(Protocol):
    """A worker process, as :class:`subprocess.Popen` describes it."""

    pid: int

    @property
    def stdout(self) -> IO[str] | None:
        """What it writes, line by line."""
        ...

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; None before it has ended."""
        ...

    def poll(self) -> int | None:
        """Returns the exit status, None if it still runs."""
        ...

    def wait(self) -> int:
        """Waits for its end; returns the exit status."""
        ...


class WarmWorkers:
    """Starts workers as copies of one process; safe to use from several threads.

    Args:
        environment: The environment of that process, and so of each worker.
        timeout: Seconds that it may take to load.
        copies: What they do.
    """

    def __init__(self, environment: Mapping[str, str], timeout: float, copies: Copies) -> None:
        self.environment = dict(environment)
        self._timeout = timeout
        self._turn = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*_COMMAND, str(theirs.fileno()), copies],
                env=self.environment, pass_fds=[theirs.fileno()], cwd=ROOT, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def start(self, work: Path, log: IO[bytes]) -> Worker | None:
        """Starts a worker.

        Args:
            work: Its folder, with the job.
            log: Where its errors go.

        Returns:
            It; None if PyTorch does not load there. A worker that loads it itself then says why.
        """
        output, their_output = os.pipe()
        stated, their_status = os.pipe()
        status = os.fdopen(stated, "rb", buffering=0)
        request = json.dumps([str(work / output_files.JOB), str(work)]).encode()
        theirs = [their_output, log.fileno(), their_status]
        try:
            with self._turn:
                socket.send_fds(self._socket, [request], theirs)
                os.close(their_status)
                theirs.pop()
                pid = self._read_pid(status)
        except OSError:  # it has ended
            pid = None
        finally:
            for descriptor in theirs:
                if descriptor != log.fileno():
                    os.close(descriptor)
        if pid is None:
            os.close(output)
            status.close()
            return None
        return _Copy(pid, output, status)

    def _read_pid(self, status: FileIO) -> int | None:
        """Returns the process ID that a new worker states."""
        if not select.select([status], [], [], self._timeout)[0]:
            self._process.kill()
            return None
        line = status.readline()  # no more: the exit status may be there already
        return int(line) if line else None

    def end(self) -> None:
        """Ends the process. Workers that still run end, too, within a second."""
        self._process.kill()
        self._process.wait()
        self._socket.close()


class _Copy:
    """A worker that another process has started."""

    def __init__(self, pid: int, output: int, status: FileIO) -> None:
        self.pid = pid
        self.stdout: IO[str] | None = os.fdopen(output, encoding="utf-8", errors="replace")
        self.returncode: int | None = None
        self._status = status
        self._turn = threading.Lock()

    def poll(self) -> int | None:
        with self._turn:
            if self.returncode is None and select.select([self._status], [], [], 0)[0]:
                # Nothing if the process that states it was killed: then its copies end, too.
                line = self._status.readline()
                self.returncode = int(line) if line else -signal.SIGKILL
            return self.returncode

    def wait(self) -> int:
        while (status := self.poll()) is None:
            select.select([self._status], [], [])
        return status
