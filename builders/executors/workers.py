"""The worker processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from builders.executors.warm import CAN_COPY, WarmWorkers, Worker
from builders.jobs import output_files
from builders.paths import ROOT
from zoo.util.errors import ClusterError


class Workers:
    """Starts workers, and stops those that run; safe to use from several threads.

    Args:
        timeout: Seconds that the process whose copies they are may take to load.
        warm: Whether exports run in copies of one process that has imported PyTorch.
    """

    def __init__(self, timeout: float, *, warm: bool) -> None:
        self._timeout = timeout
        self._copies = warm and CAN_COPY
        self._warm: WarmWorkers | None = None
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
        exports: bool,
    ) -> Worker:
        """Starts a worker.

        Args:
            command: Its command, unless it is a copy; job and output folder are appended.
            environment: Its environment.
            work: Its folder, with the job.
            log: Where its errors go.
            exports: Whether its job is an export.

        Raises:
            ClusterError: The farm has been stopped.
        """
        copy = self._copy(environment, work, log) if exports else None
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

    def _copy(self, environment: Mapping[str, str], work: Path, log: IO[bytes]) -> Worker | None:
        """Starts a worker as a copy; returns None if it can't be one."""
        with self._turn:
            self.check()
            if self._copies and self._warm is None:
                self._warm = WarmWorkers(environment, self._timeout)
            warm = self._warm
        if warm is None or warm.environment != environment:  # a job with another store
            return None
        copy = warm.start(work, log)
        if copy is None:
            self._copies, self._warm = False, None
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
            if self._warm is not None:
                self._warm.end()


def kill(worker: Worker) -> None:
    """Kills a worker and its child processes."""
    try:
        os.killpg(worker.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # none are left; macOS raises PermissionError
        return
