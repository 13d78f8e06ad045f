"""Memory that this process may still use, so that what can't fit is refused before it is tried."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path
from typing import Any

from zoo.util.errors import HeadError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Returns the available bytes of memory: the machine's, or less in a container with a limit.

    Returns:
        None where the system doesn't tell, such as outside Linux.
    """
    known = [size for size in (_of_machine(), _of_container()) if size is not None]
    return min(known) if known else None


def _of_machine() -> int | None:
    try:
        lines = _MEMINFO.read_text("ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvail"))
    except (OSError, ValueError, StopIteration):
        return None


def _of_container() -> int | None:
    try:
        limit = int((_CGROUP / "memory.max").read_text("ascii"))  # "max" without a limit
        used = int((_CGROUP / "memory.current").read_text("ascii"))
        lines = (_CGROUP / "memory.stat").read_text("ascii").splitlines()
        cached = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError, StopIteration):
        return None
    return max(0, limit - used + cached)


def give_back() -> None:
    """Returns the memory of what was freed to the system.

    The C library keeps what a thread has freed for that thread: each of several decoders would
    hold the memory of the largest photo that it has seen. Does nothing outside glibc.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def check_memory(needed: int, of: str, hint: str) -> None:
    """Checks that memory is available.

    Args:
        needed: Bytes.
        of: What needs them.
        hint: What to do about it.

    Raises:
        HeadError: There is not enough.
    """
    available = available_memory()
    if available is not None and needed > available:
        raise HeadError(
            f"{of} needs {_gib(needed)} of memory, {_gib(available)} are available", hint=hint
        )


def _gib(size: int) -> str:
    return f"{size / (1 << 30):,.1f} GiB"
