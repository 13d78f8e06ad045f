"""Turns between processes, where the disk has them; work goes on where it does not."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
"""What file systems without locks answer."""

_NOT_MINE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def is_not_mine(error: OSError) -> bool:
    """Whether an error says that this user may not write here."""
    return error.errno in _NOT_MINE


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Waits until no other process has its turn.

    A turn saves work; it must not be needed for files to be whole: some file systems have no locks,
    or grant every one, and in a folder that this user may not write there may be no file to lock.

    Args:
        path: The file that is locked; created if it can be.
    """
    file = _open(path)
    if file is None:
        yield
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(file)


def _open(path: Path) -> int | None:
    """Opens a file to lock, for reading if it is another user's; None if there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if not is_not_mine(error):
            raise
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
