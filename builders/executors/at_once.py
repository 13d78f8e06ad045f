"""How many exports run at once on this machine."""

from __future__ import annotations

import os

from zoo.caft.memory import available_memory
from zoo.util.errors import UsageError

_EACH = 7 * 2**30
"""Bytes of memory for an export."""

_MOST = 8
"""Exports without ``JOBS=``: each also uses as many threads as there are cores, for a while."""


def parse_jobs(text: str) -> int | None:
    """Parses ``JOBS=``.

    Returns:
        The number, None if the text is empty.

    Raises:
        UsageError: It is not a whole number above 0.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and int(text) > 0):
        raise UsageError(
            f"JOBS={text} (--jobs) is not a whole number from 1 to 9999",
            hint="for example JOBS=2; leave it out for as many as cores and memory allow",
        )
    return int(text)


def automatic_jobs(limit: int | None = None) -> int:
    """Returns how many exports this machine has cores and available memory for, 1 or more.

    Args:
        limit: Memory limit of a job in bytes, if there is one.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    memory = available_memory()
    fit = cores if memory is None else memory // (limit or _EACH)
    return max(1, min(cores, fit, _MOST))
