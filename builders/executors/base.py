"""The interface of an executor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builders.job import BuildOutput, ExportOutput, Job
from builders.progress import Report


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a job left.

    Attributes:
        result: Its result.
        folder: Its output directory, the caller's to keep or remove.
    """

    result: ExportOutput | BuildOutput
    folder: Path


class Executor(Protocol):
    """Runs jobs."""

    def run(self, job: Job, folder: Path, report: Report) -> Outcome:
        """Runs a job into an empty folder.

        Raises:
            JobError: It failed, crashed, took too long or too much memory. The folder has
                ``job.json`` and ``log.txt``.
        """
        ...
