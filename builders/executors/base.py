"""The interface of an executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builders.jobs.messages import BuildOutput, ExportOutput, Job, ReferenceOutput
from builders.jobs.progress import Report
from zoo.client.host import local_archs
from zoo.schema.targets import Arch, Toolchain


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a job left.

    Attributes:
        result: Its result.
        folder: Its output directory, the caller's to keep or remove.
    """

    result: ExportOutput | ReferenceOutput | BuildOutput
    folder: Path


class Executor(Protocol):
    """Runs jobs."""

    @property
    def slots(self) -> int:
        """How many jobs may be given to it at once, each from a thread of its own."""
        ...

    def run(self, job: Job, folder: Path, report: Report) -> Outcome:
        """Runs a job into an empty folder.

        Raises:
            JobError: It failed, crashed, took too long or too much memory. The folder has
                ``job.json`` and ``log.txt``.
            ClusterError: Nothing can be run any more.
        """
        ...

    def runs_on(self, archs: Sequence[Arch], toolchain: Toolchain) -> Arch | None:
        """Returns the first of an engine's architectures on which it can be run, None for none."""
        ...

    def stop(self) -> None:
        """Ends what runs: the farm was interrupted."""
        ...


class ThisMachine:
    """What executors that run one job at a time, on this machine, have in common."""

    slots = 1

    def runs_on(self, archs: Sequence[Arch], toolchain: Toolchain) -> Arch | None:
        """Returns the first of an engine's architectures that this machine has."""
        return next((arch for arch in (Arch("cpu"), *local_archs()) if arch in archs), None)

    def stop(self) -> None:
        """Does nothing: the interrupt ended the one job."""
