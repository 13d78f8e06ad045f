"""Scratch folders of running jobs, and the files that are kept of failed ones."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from pathlib import Path

from builders.jobs.messages import Job
from builders.jobs.output_files import INSPECTOR, JOB, LOG, QUARANTINE, RESULT, copy_file
from zoo.repository.repository import Repository
from zoo.util.errors import NotRunError

_KEPT = {
    JOB: "job", LOG: "log", RESULT: "result", INSPECTOR: "inspector", QUARANTINE: "quarantine",
}  # fmt: skip


def scratch_folder(repository: Repository) -> Path:
    """Creates a job's folder on the store's file system, so that outputs are moved, not copied."""
    inside = repository.store.local_path("scratch")
    if inside is None:
        return Path(tempfile.mkdtemp(prefix="job-"))
    root = inside.parent / ".incoming"
    root.mkdir(parents=True, exist_ok=True)
    here = f"job-{platform.node()}-"
    for folder in root.glob(f"{here}*"):
        owner = folder.name.removeprefix(here).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():  # its run was killed
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{here}{os.getpid()}-", dir=root))


def keep(folder: Path, kept: Path) -> None:
    """Keeps job, log, result and the engine inspector's report of a failed job."""
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for name, kind in _KEPT.items():
        copy_file(folder, name, kind, kept)


def check_quarantine(job: Job, kept: Path) -> None:
    """Raises an error if a job is quarantined; a job that has changed since is not.

    Raises:
        NotRunError: It is quarantined; the hint says how to run it again.
    """
    if (kept / QUARANTINE).is_file():
        text = (kept / "job.json").read_text(encoding="utf-8")
        if text == job.model_dump_json(indent=1):
            raise NotRunError(
                "in quarantine: an earlier run lost several workers in the middle of it",
                hint=f"log: {kept.absolute() / 'log.txt'}\n"
                f"  to try it again: rm -r {kept.absolute()}",
            )
