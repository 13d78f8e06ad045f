"""Runs a job in a scratch folder and keeps the files of a job that failed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builders.executors import Executor, Outcome
from builders.jobs import scratch
from builders.jobs.messages import BuildOutput, Job
from builders.jobs.progress import Display
from zoo.repository.repository import Repository
from zoo.util.errors import JobError, MissError, VerificationError


class JobRunner:
    """Runs jobs and keeps the files of failed ones.

    Args:
        repository: The repository, on whose file system scratch folders are made.
        executor: Runs jobs.
        display: Shows progress.
    """

    def __init__(self, repository: Repository, executor: Executor, display: Display) -> None:
        self._repository = repository
        self._executor = executor
        self._display = display

    @contextmanager
    def job(
        self, label: str, job: Job, failures: Path, *, retry: bool = False
    ) -> Iterator[Outcome]:
        """Runs a job in a scratch folder; keeps job, log and result of one that fails.

        Args:
            label: Of the model or engine.
            job: The job.
            failures: Folder that keeps what failed.
            retry: Whether to run a job that is in quarantine.
        """
        kept = failures / label.replace(" ", "-")
        if not retry:
            scratch.check_quarantine(job, kept)
        with scratch.scratch_folder(self._repository) as folder:
            try:
                with self._display.job(label) as report:
                    outcome = self._executor.run(job, folder, report)
                yield outcome
                shutil.rmtree(kept, ignore_errors=True)  # of an earlier run
            except (JobError, VerificationError) as error:
                raise _reported(error, folder, kept) from error


def _reported(
    error: JobError | VerificationError, folder: Path, kept: Path
) -> JobError | VerificationError:
    """Keeps the files of a failed job; returns its error with where they are."""
    scratch.keep(folder, kept)
    command = f"{Path(sys.executable).parent / 'zoo-farm'} worker"
    kept = kept.absolute()
    again = f"{command} {kept / 'job.json'} {kept / 'again'}"
    reported = type(error)(
        error.message,
        hint=f"{error.hint + '; ' if error.hint else ''}log: {kept / 'log.txt'}\n"
        f"  to reproduce: {again}",
    )
    reported.command = again
    return reported


def passed(outcome: Outcome, otherwise: str) -> BuildOutput:
    """Returns a build's output.

    Args:
        outcome: The outcome of a build or verification.
        otherwise: What happens to an engine that fails, for the message.

    Raises:
        MissError: Its engine misses its tolerance.
    """
    output = outcome.result
    assert isinstance(output, BuildOutput)
    if output.verification is not None and not output.verification.passed:
        raise MissError(f"{otherwise}: {output.verification.reason}")
    return output
