"""Takes over the files that a worker wrote, trusting neither their names nor their contents.

A worker writes into :data:`WORK`, a subfolder of its job's folder. When it has ended, the farm
moves the files that the result names into the job's folder itself, which a container never sees.
Everything that is published, read or kept afterwards comes from there.

Files are opened relative to a descriptor of their folder, never through a link. Each must be a
regular file with one name and a bounded size, and after the move still be the file that was opened.

A worker outside a container runs as the farm's user and could change the store directly: these
checks limit what it returns, a container limits what it does.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from builders.jobs.messages import BuildOutput, ExportOutput, ReferenceOutput
from builders.jobs.output_formats import check_formats
from zoo.util.errors import JobError

WORK = "work"
"""Subfolder of a job's folder that its worker may write."""

JOB, LOG, RESULT = "job.json", "log.txt", "result.json"
VERIFIED = "verified.json"  # of an engine whose speed another worker measures
INSPECTOR, QUARANTINE = "inspector.json", "quarantine.json"

_MIB, _GIB = 2**20, 2**30

LIMITS = {
    "engine": 32 * _GIB,
    "onnx": 16 * _GIB,
    "state": 16 * _GIB,
    "golden": 4 * _GIB,
    "labelled": 16 * _GIB,
    "features": 16 * _GIB,
    "timing_cache": 4 * _GIB,
    "inspector": _GIB,
    "tactics": _GIB,
    "log": _GIB,
    "result": 8 * _MIB,
    "job": 8 * _MIB,
    "quarantine": _MIB,
}
"""Largest size in bytes of each kind of file."""

LOG_END = 64 * 2**10
"""Bytes at the end of a log that are read for an error message."""

_HINT = "the worker is broken, or someone tampered with it: nothing that it returned was stored"


def named_files(result: ExportOutput | ReferenceOutput | BuildOutput) -> dict[str, str]:
    """Returns the name and kind of every file that a result names.

    Raises:
        JobError: It names a file twice.
    """
    files: list[tuple[str | None, str]]
    if isinstance(result, ExportOutput):
        files = [(result.golden, "golden"), (result.state, "state")]
        files += [(export.onnx, "onnx") for export in result.exports]
    elif isinstance(result, ReferenceOutput):
        files = [(result.file, "labelled")]
    else:
        files = [(result.engine, "engine"), (result.timing_cache, "timing_cache")]
        files += [(name, kind) for kind, name in result.files.items()]
        if result.verification is not None:
            files.append((result.verification.labelled, "features"))
    kinds: dict[str, str] = {}
    for name, kind in files:
        if name in kinds:
            raise JobError(f"a worker returned {name} as {kinds[name]} and as {kind}", hint=_HINT)
        if name is not None:
            kinds[name] = kind
    return kinds


def check_size(name: str, kind: str, size: int) -> None:
    """Checks the size of a file against the limit of its kind.

    Raises:
        JobError: It is too large.
    """
    if not 0 <= size <= LIMITS[kind]:
        raise JobError(
            f"a worker returned {name} ({kind}) of {size:,} bytes; at most {LIMITS[kind]:,} are "
            "accepted",
            hint=_HINT,
        )


class OutputFolder:
    """A folder that a worker could write to, held open by a descriptor.

    Args:
        path: The folder.

    Raises:
        JobError: It is missing, or was replaced by something else.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise JobError(
                f"the worker's folder {path.name} can't be opened: {error.strerror}", hint=_HINT
            ) from error

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._folder)

    @contextmanager
    def open(self, name: str, kind: str) -> Iterator[int]:
        """Yields a descriptor of a file, open for reading.

        Raises:
            FileNotFoundError: There is no such file.
            JobError: It is a link, not a regular file, has several hard links, or is too large.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self._folder)
        except FileNotFoundError:
            raise
        except OSError as error:
            what = "is a link" if error.errno == errno.ELOOP else str(error.strerror)
            raise _refused(name, kind, what) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _refused(name, kind, "is not a regular file")
            if status.st_nlink != 1:
                raise _refused(name, kind, f"is one of {status.st_nlink} hard links")
            check_size(name, kind, status.st_size)
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, name: str, kind: str) -> bytes:
        """Returns a file's bytes; raises like :meth:`open`."""
        with self.open(name, kind) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
            data = file.read(LIMITS[kind] + 1)  # it may be growing
        check_size(name, kind, len(data))
        return data

    def read_end(self, name: str, kind: str, most: int, *, start: int = 0) -> tuple[bytes, int]:
        """Returns a file's last bytes and its size; raises like :meth:`open`.

        Args:
            name: The file.
            kind: What it is.
            most: The largest number of bytes to return.
            start: The offset of the first byte that may be returned.
        """
        with self.open(name, kind) as descriptor:
            size = os.fstat(descriptor).st_size
            at = max(start, size - most)
            return os.pread(descriptor, min(most, max(0, size - at)), at), size

    def take(self, name: str, kind: str, folder: Path) -> None:
        """Moves a file into a folder that the worker can't write to; raises like :meth:`open`.

        It is not copied, because engines and exports can be gigabytes large.
        """
        with self.open(name, kind) as descriptor:
            os.rename(name, folder / name, src_dir_fd=self._folder)
            opened, moved = os.fstat(descriptor), os.lstat(folder / name)
            if (opened.st_dev, opened.st_ino) != (moved.st_dev, moved.st_ino):
                raise _refused(name, kind, "was replaced while it was taken over")
            if opened.st_nlink != 1:
                raise _refused(name, kind, "got a hard link while it was taken over")


def make_work_folder(folder: Path, job: str) -> Path:
    """Creates the folder for a worker to write to, with the job and an empty log in it."""
    work = folder / WORK
    work.mkdir(mode=0o700)
    for place in (folder, work):
        write_file(place / JOB, job.encode())
    write_file(work / LOG, b"")
    return work


def collect_logs(folder: Path) -> bytes | None:
    """Takes over a worker's log and returns the bytes of its result, None if there is none.

    Anything else in the job's folder is removed first: only the farm writes there.

    Raises:
        JobError: Either is not a plain file of a bounded size.
    """
    job = _only_the_work(folder)
    if job is not None:
        write_file(folder / JOB, job)
    with OutputFolder(folder / WORK) as made:
        with suppress(FileNotFoundError):
            made.take(LOG, "log", folder)
        try:
            data = made.read(RESULT, "result")
        except FileNotFoundError:
            with suppress(FileNotFoundError, JobError):  # helps to investigate the failure
                made.take(INSPECTOR, "inspector", folder)
            return None
    write_file(folder / RESULT, data)
    return data


def collect_files(result: ExportOutput | ReferenceOutput | BuildOutput, folder: Path) -> None:
    """Takes over the files that a result names.

    Raises:
        JobError: One is missing, is not a plain file of a bounded size, or has another format than
            its kind.
    """
    with OutputFolder(folder / WORK) as made:
        for name, kind in named_files(result).items():
            try:
                made.take(name, kind, folder)
            except FileNotFoundError as error:
                raise _refused(name, kind, "is not there") from error
    check_formats(named_files(result), folder)


def read_log_end(folder: Path, most: int = LOG_END) -> str:
    """Returns the end of a job's log as text, empty if there is no readable log."""
    try:
        with OutputFolder(folder) as opened:
            data, size = opened.read_end(LOG, "log", most)
    except (FileNotFoundError, JobError):
        return ""
    cut = f"[the first {size - len(data)} bytes are omitted]\n" if size > len(data) else ""
    return cut + data.decode(errors="replace")


def write_file(path: Path, data: bytes) -> None:
    """Writes a file, replacing whatever is there; never follows a link."""
    partial = path.with_name(f".{uuid.uuid4().hex}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(partial, flags, 0o644), "wb") as file:
        file.write(data)
    os.replace(partial, path)


def copy_file(folder: Path, name: str, kind: str, target: Path) -> None:
    """Copies a file from a job's folder if it exists and is a plain file of a bounded size."""
    with suppress(FileNotFoundError, JobError), OutputFolder(folder) as opened:
        write_file(target / name, opened.read(name, kind))


def _only_the_work(folder: Path) -> bytes | None:
    """Removes everything but the worker's folder; returns the job, which the farm wrote."""
    job = None
    with suppress(FileNotFoundError, JobError), OutputFolder(folder) as opened:
        job = opened.read(JOB, "job")
    for entry in os.scandir(folder):
        if entry.name == WORK:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    return job


def _refused(name: str, kind: str, what: str) -> JobError:
    return JobError(f"a worker returned {name} ({kind}), which {what}", hint=_HINT)
