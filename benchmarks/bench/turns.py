"""Runs ways of doing the same work in turns, and measures whole commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks.bench.results import Taken
from zoo.util.errors import RunError

Way = Callable[[], Taken]
"""Does the work once."""

# A small process in between: Linux counts what the starting process used as a peak of the started.
_TIMED = """
import json, resource, subprocess, sys, time
begun = time.perf_counter()
done = subprocess.run(sys.argv[2:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
seconds = time.perf_counter() - begun
sys.stderr.buffer.write(done.stdout[-4000:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "mib": peak}))
sys.exit(done.returncode != int(sys.argv[1]))
"""


def in_turns(ways: Mapping[str, Way], rounds: int, *, warm: bool = True) -> dict[str, list[Taken]]:
    """Runs each way once a round; who begins changes from round to round.

    Args:
        ways: The ways by name.
        rounds: How many rounds count.
        warm: Whether a round that does not count comes first.
    """
    taken: dict[str, list[Taken]] = {name: [] for name in ways}
    names = [*ways]
    if warm:
        for run in ways.values():
            run()
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            taken[name].append(ways[name]())
    return taken


def command(
    arguments: Iterable[str | Path],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    status: int = 0,
) -> Taken:
    """Runs a command and measures it from its start to its end.

    Args:
        arguments: The command.
        folder: Where it runs.
        environment: Its whole environment; None for this process's.
        status: The exit status that it has to have.

    Raises:
        RunError: It ended with another status.
    """
    words = [*map(str, arguments)]
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", _TIMED, str(status), *words],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RunError(f"{' '.join(words)}:\n{done.stderr}")
    return Taken(**json.loads(done.stdout))
