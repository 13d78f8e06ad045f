"""Scratch folders of running jobs, and the files that are kept of failed ones."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from builders.jobs.messages import Job, parse_job
from builders.jobs.output_files import INSPECTOR, JOB, LOG, QUARANTINE, RESULT, copy_file
from zoo.repository.repository import Repository
from zoo.util.errors import NotRunError
from zoo.util.loading import read_regular

_KEPT = {
    JOB: "job", LOG: "log", RESULT: "result", INSPECTOR: "inspector", QUARANTINE: "quarantine",
}  # fmt: skip

IDLE = 7 * 86_400.0
"""Seconds without a write after which any job's folder counts as left: no job runs that long."""

_SETTLED = 60.0
"""Seconds in which the run that made a folder has certainly locked it."""

_NAME = re.compile(r"job-(?P<host>.*)-(?P<pid>\d+)-[a-z0-9_]+")


@contextmanager
def scratch_folder(repository: Repository) -> Iterator[Path]:
    """Yields a new folder for a job, which is deleted on exit.

    It is on the store's file system, so that outputs are moved, not copied. Folders that killed
    runs of this machine left are deleted first.

    Raises:
        NotRunError: The folder for them is a link, which somebody with write access left.
    """
    inside = repository.store.local_path("scratch")
    root = Path(tempfile.gettempdir()) if inside is None else inside.parent / ".incoming"
    if inside is not None and root.is_symlink():
        raise NotRunError(f"{root} is a link", hint="remove it, and find out who left it there")
    root.mkdir(parents=True, exist_ok=True)
    for folder in root.glob("job-*"):
        if is_left(folder):
            shutil.rmtree(folder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"job-{platform.node()}-{os.getpid()}-", dir=root))
    lock = _locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def is_left(folder: Path) -> bool:
    """Whether no run uses a job's folder any more.

    A folder of this machine is left if its process has ended and nobody holds its lock: a process
    of a container with the same name and its own process IDs holds it. Of other machines, and on a
    disk without locks, only folders that nobody has touched for :data:`IDLE` are.
    """
    match = _NAME.fullmatch(folder.name)
    if match is None:
        return False
    try:
        times = [path.lstat().st_mtime for path in (folder, *folder.rglob("*"))]
        idle = time.time() - max(times)
        if idle > IDLE:
            return True
        if match["host"] != platform.node() or idle < _SETTLED:
            return False
        if Path(f"/proc/{match['pid']}").exists():
            return False
    except OSError:  # its run is deleting it
        return False
    lock = _locked(folder)
    if lock is not None:
        os.close(lock)
    return lock is not None


def _locked(folder: Path) -> int | None:
    """Returns a descriptor that holds a folder's lock, None if it can't be had.

    It is closed with the process, however that ends.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def keep(folder: Path, kept: Path) -> None:
    """Keeps job, log, result and the engine inspector's report of a failed job."""
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for name, kind in _KEPT.items():
        copy_file(folder, name, kind, kept)


def _job_in(file: Path) -> Job | None:
    """Returns a kept job, None if this version would not make such a job."""
    try:
        return parse_job.validate_json(read_regular(file))
    except ValidationError:
        return None


def check_quarantine(job: Job, kept: Path) -> None:
    """Raises an error if a job is quarantined; a job that has changed since is not.

    Raises:
        NotRunError: It is quarantined; the hint says how to run it again.
    """
    if (kept / QUARANTINE).is_file():
        earlier = _job_in(kept / JOB)
        if earlier is not None and earlier.model_dump_json() == job.model_dump_json():
            raise NotRunError(
                "in quarantine: an earlier run lost several workers in the middle of it",
                hint=f"log: {kept.absolute() / 'log.txt'}\n"
                f"  to try it again: rm -r {kept.absolute()}",
            )
