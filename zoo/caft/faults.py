"""Tells faults of the machine, which stop a pass, from bad images, which are left out."""

from __future__ import annotations

import errno

from zoo.util.errors import RunError

_CODES = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ENOSPC}
    | {errno.EDQUOT, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.ENODEV}
)
_HINT = "run the same command again once the machine can read it; finished images stay in the cache"


class MachineError(RunError):
    """A fault of the machine while an image was read: the image may be sound."""


def fault_of(error: BaseException | None) -> str | None:
    """Returns the reason if an error, or what caused it, is a fault of the machine."""
    while error is not None:
        if isinstance(error, MemoryError):
            return "out of memory"
        if isinstance(error, OSError) and error.errno in _CODES:
            return error.strerror or str(error)
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
