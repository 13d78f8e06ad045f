"""The other side of :mod:`benchmarks.bench.child`; imports nothing that a peer's Python may lack."""

import sys
import time


def serve(name, run, per=1):  # type: ignore[no-untyped-def]
    """Answers each line on stdin after doing the work once; ``per`` is how much that was."""
    print("ready", name, flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        run()
        seconds = (time.perf_counter() - begun) / per
        print("ready", seconds, peak(), flush=True)


def peak():  # type: ignore[no-untyped-def]
    """Returns this process's peak of resident memory, MiB."""
    with open("/proc/self/status", encoding="ascii") as status:  # ru_maxrss has the parent's too
        (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
