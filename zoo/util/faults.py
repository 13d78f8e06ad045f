"""Tells faults of the machine, which stop a pass, from bad images, which are left out."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from zoo.util.errors import RunError

_CODES = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ENOSPC}
    | {errno.EDQUOT, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.ENODEV}
    | {errno.EAGAIN, errno.EREMOTEIO, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}
    | {errno.ECONNRESET, errno.ENOLINK, errno.ENOBUFS}
)
_HINT = "run the same command again once the machine can read it; finished images stay in the cache"
_NO_THREAD = "can't start new thread"  # a RuntimeError of Python's

PAUSES = (0.0, 1.0)
"""Seconds before the second and the third attempt: another program may need memory for a moment."""

R = TypeVar("R")


class MachineError(RunError):
    """A fault of the machine while an image was read: the image may be sound."""


class CrashError(RunError):
    """A process crashed on an image, which may be the image's fault or the machine's."""


def fault_of(error: BaseException | None) -> str | None:
    """Returns the reason if an error, or what caused it, is a fault of the machine."""
    while error is not None:
        if isinstance(error, MachineError):
            return error.message
        if isinstance(error, MemoryError):
            return "out of memory"
        if isinstance(error, OSError) and error.errno in _CODES:
            return error.strerror or str(error)
        if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
            return _NO_THREAD
        error = error.__cause__
    return None


def check_fault(error: Exception, name: str) -> None:
    """Checks that an error is the fault of an image.

    Raises:
        MachineError: It is the machine's.
    """
    reason = fault_of(error)
    if reason is not None:
        raise MachineError(f"can't read {name}: {reason}", hint=_HINT) from error


def is_doubtful(error: Exception) -> bool:
    """Whether an error may be the machine's, so that another attempt is worth it."""
    return isinstance(error, CrashError) or fault_of(error) is not None


def persistently(work: Callable[[], R], name: str, pauses: tuple[float, ...] = ()) -> R:
    """Reads an image, and again after faults of the machine.

    Args:
        work: What reads it.
        name: Its name.
        pauses: Seconds before each further attempt; by default :data:`PAUSES`.

    Raises:
        MachineError: The fault lasts.
    """
    for pause in pauses or PAUSES:
        try:
            return work()
        except Exception as error:  # whatever the image makes its reader raise
            if not is_doubtful(error):
                raise
        time.sleep(pause)
    try:
        return work()
    except Exception as error:
        check_fault(error, name)
        raise
