"""The worker processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from builders.executors.warm import CAN_COPY, Copies, WarmWorkers, Worker
from builders.jobs import output_files
from builders.paths import ROOT
from zoo.util.errors import ClusterError


class Workers:
    """Starts workers, and stops those that run; safe to use from several threads.

    Args:
        timeout: Seconds that the process whose copies they are may take to load.
        warm: Whether workers may be copies of processes that have imported PyTorch.
    """

    def __init__(self, timeout: float, *, warm: bool) -> None:
        self._timeout = timeout
        self._warm: dict[Copies, WarmWorkers | None] = (
            {} if warm and CAN_COPY else dict.fromkeys(Copies)
        )
        """The processes that are copied; None for one that does not load."""
        self._running: list[Worker] = []
        self._stopped = False
        self._turn = threading.Lock()

    def start(
        self,
        command: tuple[str, ...],
        environment: Mapping[str, str],
        work: Path,
        log: IO[bytes],
        *,
        copies: Copies | None,
    ) -> Worker:
        """Starts a worker.

        Args:
            command: Its command, unless it is a copy; job and output folder are appended.
            environment: Its environment.
            work: Its folder, with the job.
            log: Where its errors go.
            copies: The process that it may be a copy of.

        Raises:
            ClusterError: The farm has been stopped.
        """
        copy = self._copy(copies, environment, work, log) if copies else None
        with self._turn:
            if copy is not None and self._stopped:
                kill(copy)
            self.check()
            worker = copy or subprocess.Popen(
                [*command, str(work / output_files.JOB), str(work)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                cwd=ROOT,
                start_new_session=True,
            )
            self._running.append(worker)
        return worker

    def warm(self, copies: Copies, environment: Mapping[str, str]) -> WarmWorkers | None:
        """Returns the process to copy, which may still load; None if there is none."""
        with self._turn:
            self.check()
            if copies not in self._warm:
                self._warm[copies] = WarmWorkers(environment, self._timeout, copies)
            warm = self._warm[copies]
        if warm is None or warm.environment != environment:  # a job with another store
            return None
        return warm

    def _copy(
        self, copies: Copies, environment: Mapping[str, str], work: Path, log: IO[bytes]
    ) -> Worker | None:
        """Starts a worker as a copy; returns None if it can't be one."""
        warm = self.warm(copies, environment)
        copy = warm.start(work, log) if warm else None
        if warm and copy is None:
            self._warm[copies] = None
            warm.end()
        return copy

    def has_ended(self, worker: Worker) -> None:
        """Notes that a worker has ended."""
        with self._turn:
            self._running.remove(worker)

    def check(self) -> None:
        """Raises ClusterError if the farm has been stopped."""
        if self._stopped:
            raise ClusterError("stopped")

    def stop(self) -> None:
        """Ends the workers that run; no other starts."""
        with self._turn:
            self._stopped = True
            for worker in self._running:
                kill(worker)
            for warm in filter(None, self._warm.values()):
                warm.end()


def kill(worker: Worker) -> None:
    """Kills a worker and its child processes."""
    try:
        os.killpg(worker.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # none are left; macOS raises PermissionError
        return
