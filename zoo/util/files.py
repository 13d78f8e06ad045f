"""Atomic writes: to a temporary file in the same folder, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
"""Errors on file systems without hard links."""


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a regular file to read it; links are followed.

    Raises:
        OSError: It can't be opened, or is a folder, pipe, device or socket, which might block.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def identity_of(status: os.stat_result) -> tuple[int, ...]:
    """Returns what identifies a file's state: device, inode, size, and both times."""
    return (
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path, renamed to ``path`` on success and deleted on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file atomically."""
    with whole(path) as partial:
        partial.write_bytes(data)


def make_way(path: Path) -> None:
    """Removes a folder that stands where a file of a cache belongs.

    Never of a path that a user chose: the folder is deleted with all that it holds.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


def write_private(path: Path, data: bytes) -> None:
    """Writes a file atomically, readable by its owner only, and syncs it to disk."""
    with whole(path) as partial:
        _write_synced(partial, data)


def create_private(path: Path, data: bytes) -> bool:
    """Creates a file as :func:`write_private` does, unless it exists.

    Of several processes that create it at once, one succeeds; nobody sees it incomplete.

    Returns:
        Whether this call created it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        _write_synced(partial, data)
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            # This disk has no hard links: the name is taken first, then given its content.
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                return False
            partial.replace(path)
        return True
    finally:
        partial.unlink(missing_ok=True)


def partial_name(path: Path) -> Path:
    """Returns a temporary name beside a file that no other process uses, on any machine."""
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
