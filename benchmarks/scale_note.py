"""Formats the results of a simulation of the farm, measured by :mod:`benchmarks.scale`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from builders.executors.dask.client import KILLS
from zoo.client.host import describe_machine

if TYPE_CHECKING:
    from benchmarks.scale import Measured


def to_markdown(found: Measured, command: str) -> str:
    """Returns the results page of a simulation."""
    load, machine = found.load, describe_machine()
    rows = {
        "published": f"{found.published:,}",
        "published twice": f"{found.twice:,}",
        "failed": f"{found.failed:,}",
        "attempts": f"{found.begun:,}",
        "workers killed in the middle of a job": f"{found.killed:,}",
        "wall time": f"{found.seconds:.0f} s",
        "throughput": f"{load.jobs / found.seconds:.1f} jobs/s",
        "wall time without any overhead": (f"{load.jobs * load.seconds / load.workers:.0f} s"),
        f"**the scheduler's own overhead per job**: median of {len(found.alone)} jobs": (
            f"**{_percentile(found.alone, 50)}**"
        ),
        "the same, 95th percentile": _percentile(found.alone, 95),
        "processor time per job: scheduler": f"{1e3 * found.scheduler_cpu / load.jobs:.1f} ms",
        "processor time per job: farm": f"{1e3 * found.client_cpu / load.jobs:.1f} ms",
        "under load: processors in use": f"{found.busy:.0%}",
        "under load: submission to answer, minus the worker's own time, median": (
            _percentile(found.overhead, 50)
        ),
        "the same, 95th percentile ": _percentile(found.overhead, 95),
        "under load: around the child in the worker (folder, upload), median": (
            _percentile(found.around, 50)
        ),
    }
    return _NOTE.format(
        jobs=f"{load.jobs:,}",
        alone=len(found.alone),
        seconds=f"{load.seconds:g}",
        crashes=f"{load.crashes:.0%}",
        workers=load.workers,
        machine=f"{machine.cpu}, {machine.cores} cores, Python {machine.python}",
        cores=machine.cores,
        table="\n".join(f"| {name.strip()} | {value} |" for name, value in rows.items()),
        kills=KILLS,
        command=command,
    )


def _percentile(seconds: Sequence[float], percent: int) -> str:
    return f"{1e3 * statistics.quantiles(seconds, n=100)[percent - 1]:.1f} ms"


_NOTE = """\
# The farm at scale, simulated

{jobs} jobs of {seconds} s over {workers} workers; {crashes} of attempts kill their worker with
SIGKILL half way. All on one machine ({machine}).

| | |
| --- | ---: |
{table}

**The scheduler's own overhead per job** is the time from a job's submission to its answer, minus
the time that the worker spends on it (start of the child process, work, upload). It is measured on
{alone} empty jobs that run one after the other on the same cluster after all others, when nothing
else uses a processor. Under load, the same time includes waiting for one
of {cores} cores, which {workers} workers, the child processes of their jobs and the starts of
replacements share with the scheduler and the farm; on a cluster each machine has its own.

Real: mutual TLS, the scheduler, {workers} worker processes (one nanny process restarts
those that died), a child process per job, the executor, uploads into a local store,
records written once. Fake: the build, which sleeps. A job that kills {kills} workers is
quarantined; none here does.

```sh
{command}
```
"""
