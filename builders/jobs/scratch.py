"""Scratch: a job's folder while it runs, and what is kept of one that failed."""

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
    """Makes a folder for a job, on the store's file system: outputs are moved, not copied."""
    inside = repository.store.local_path("scratch")
    if inside is None:
        return Path(tempfile.mkdtemp(prefix="job-"))
    root = inside.parent / ".incoming"
    root.mkdir(parents=True, exist_ok=True)
    here = f"job-{platform.node()}-"
    for left in root.glob(f"{here}*"):
        owner = left.name.removeprefix(here).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():  # a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{here}{os.getpid()}-", dir=root))


def keep(folder: Path, kept: Path) -> None:
    """Keeps job, log, result and what an inspector said of the engine, of a job that failed."""
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for name, kind in _KEPT.items():
        copy_file(folder, name, kind, kept)


def check_quarantine(job: Job, kept: Path) -> None:
    """Refuses a job that was put into quarantine, as it is now.

    Raises:
        NotRunError: It was; says how it gets out.
    """
    if (kept / QUARANTINE).is_file():
        text = (kept / "job.json").read_text(encoding="utf-8")
        if text == job.model_dump_json(indent=1):
            raise NotRunError(
                "in quarantine: an earlier run lost several workers in the middle of it",
                hint=f"log: {kept.absolute() / 'log.txt'}\n"
                f"  to try it again: rm -r {kept.absolute()}",
            )
