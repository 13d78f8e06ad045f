"""The interface of an executor."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builders.jobs.messages import BuildOutput, ExportOutput, Job, ReferenceOutput
from builders.jobs.progress import Report
from zoo.client.host import local_archs
from zoo.schema.targets import Arch, Toolchain


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a job returned.

    Attributes:
        result: Its result.
        folder: Its output directory; the caller keeps or removes it.
    """

    result: ExportOutput | ReferenceOutput | BuildOutput
    folder: Path


class Executor(Protocol):
    """Runs jobs."""

    @property
    def slots(self) -> int:
        """Number of jobs that may run at once, each from its own thread."""
        ...

    @property
    def exports_at_once(self) -> int:
        """Number of exports that may run at once while nothing is measured; 1 for no more."""
        ...

    @property
    def models_at_once(self) -> int:
        """Number of models whose engines may be made at once."""
        ...

    def working(self) -> AbstractContextManager[None]:
        """Keeps engines from being measured on this machine while the farm works on a model.

        A job that measures an engine waits for the other threads, and they for it.
        """
        ...

    def run(self, job: Job, folder: Path, report: Report) -> Outcome:
        """Runs a job into an empty folder.

        Raises:
            JobError: It failed, crashed, or exceeded its time or memory. The folder contains
                ``job.json`` and ``log.txt``.
            ClusterError: No more jobs can run.
        """
        ...

    def runs_on(self, archs: Sequence[Arch], toolchain: Toolchain) -> Arch | None:
        """Returns the first of an engine's architectures that it can run on, None if none."""
        ...

    def stop(self) -> None:
        """Ends running jobs when the farm is interrupted."""
        ...


class ThisMachine:
    """Base of executors that run one job at a time on this machine."""

    slots = 1
    exports_at_once = 1
    models_at_once = 1

    def working(self) -> AbstractContextManager[None]:
        """Returns at once: there is nobody else."""
        return nullcontext()

    def runs_on(self, archs: Sequence[Arch], toolchain: Toolchain) -> Arch | None:
        """Returns the first of an engine's architectures that this machine has."""
        return next((arch for arch in (Arch("cpu"), *local_archs()) if arch in archs), None)

    def stop(self) -> None:
        """Does nothing: the interrupt has ended the one job."""
