"""Turns between processes, where the disk has them; work goes on where it does not."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo.util.terminal import harmless

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
"""What file systems without locks answer."""

_QUIET = 3.0
"""Seconds to wait before telling the user."""

_PAUSE = 0.02
"""Seconds between attempts to lock a file."""

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
            _lock(file, path)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(file)


def _lock(file: int, path: Path) -> None:
    """Locks a file and notes this process in it; says who is waited for if it takes long."""
    start, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(_PAUSE)
        if not told and time.monotonic() - start > _QUIET:
            holder = os.pread(file, 200, 0).decode(errors="replace") or "another process"
            print(
                harmless(f"waiting for {holder}, which holds {path}"), file=sys.stderr, flush=True
            )
            told = True
    with suppress(OSError):  # another user's file is open for reading alone
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {platform.node()}".encode(), 0)


def _open(path: Path) -> int | None:
    """Opens a file to lock, for reading if it is another user's; None if there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if not is_not_mine(error):
            raise
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
