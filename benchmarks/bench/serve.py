"""The other side of :mod:`.child`; imports nothing that a peer's Python may lack."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def serve(name: str, run: Callable[[], object], per: int = 1) -> None:
    """Answers each line on stdin after doing the work once.

    Args:
        name: What does the work, and its version.
        run: Does the work.
        per: How much work that is; the answer is seconds for one.
    """
    print("ready", name, flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        run()
        seconds = (time.perf_counter() - begun) / per
        print("ready", seconds, peak(), flush=True)


def peak() -> float:
    """Returns this process's peak of resident memory, MiB."""
    with open("/proc/self/status", encoding="ascii") as status:  # ru_maxrss has the parent's too
        (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
