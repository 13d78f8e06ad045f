"""Runs the scheduler and the workers of one machine until a signal stops them.

Each slot is a worker process with one thread, so that it runs one job at a time and its death
affects no other job. A nanny restarts it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from builders.executors.dask.resources import Slot
from builders.executors.dask.worker import SLOT
from builders.toolchains.worker_environment import drop_secrets
from zoo.cluster.tls import (
    check_address,
    is_loopback,
    open_security,
    quiet,
    say_cause,
)
from zoo.util.errors import ClusterError, UsageError

_CONFIG = {
    # The farm itself retries jobs of dead workers, and counts the deaths.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-ttl": "2 minutes",
    "distributed.admin.log-length": 1000,
    "distributed.worker.profile.enabled": False,
    # Jobs are child processes with their own memory limits.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
}
_NOWHERE = "127.0.0.1:0"  # Dask's dashboard does not support TLS: it is only served on this machine

Say = Callable[[str], None]


def run(
    *,
    listen: str | None,
    scheduler: str | None,
    slots: Sequence[Slot],
    certs: Path | None,
    scratch: Path,
    say: Say,
) -> int:
    """Runs a scheduler, workers, or both, until SIGINT or SIGTERM.

    Args:
        listen: ``host:port`` of the scheduler to run; None to run none.
        scheduler: Address of the scheduler that the workers join; None for the one run here.
        slots: The workers.
        certs: Folder of certificates; None for plain TCP on loopback.
        scratch: Folder for Dask's files.
        say: Called with progress messages.

    Returns:
        0 if a signal stopped it.

    Raises:
        UsageError: It would listen on a network address without TLS.
        ClusterError: The port is in use, or the scheduler is unreachable or was lost.
    """
    # Also checks that distributed is installed, before Dask is imported.
    security = open_security("scheduler" if listen else "worker", certs)
    import dask

    quiet()
    drop_secrets()
    dask.config.set(_CONFIG)
    return asyncio.run(_run(listen, scheduler, slots, certs, security, scratch, say))


async def _run(
    listen: str | None,
    scheduler: str | None,
    slots: Sequence[Slot],
    certs: Path | None,
    security: Any,
    scratch: Path,
    say: Say,
) -> int:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with AsyncExitStack() as stack:
        if listen is not None:
            scheduler = await stack.enter_async_context(_scheduler(listen, certs, security))
            say(f"scheduler: {scheduler}")
        assert scheduler is not None
        nannies = await _start_workers(stack, scheduler, slots, certs, scratch)
        for slot in slots:
            say(f"worker {slot.name}: {', '.join(slot.builds)}")
        gone = asyncio.create_task(_scheduler_gone(nannies, scheduler))
        waits = [asyncio.create_task(ended.wait()), *([gone] if nannies else [])]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        lost = not ended.is_set()
        for task in (*waits, gone):
            task.cancel()
        if not lost:
            say("stopping")
    if lost:
        raise ClusterError(
            f"the scheduler {scheduler} was lost, so its workers stopped",
            hint="restart it, then the workers; a service manager can do both",
        )
    return 0


class _scheduler:
    """Context manager that runs a scheduler and yields its address."""

    def __init__(self, listen: str, certs: Path | None, security: Any) -> None:
        host, _, port = listen.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65_535:
            raise UsageError(
                f"--listen {listen} is not host:port", hint="for example 127.0.0.1:8786"
            )
        if certs is None and not is_loopback(host):
            raise UsageError(
                f"--listen {listen} would accept jobs from anybody: whoever can connect to a "
                "scheduler can run code on its workers",
                hint="create certificates with zoo-farm cluster certs DIR, then pass --certs DIR",
            )
        self._listen, self._host, self._port = listen, host, int(port)
        self._protocol = "tls" if certs else "tcp"
        self._security = security
        self._server: Any = None

    async def __aenter__(self) -> str:
        from distributed import Scheduler

        try:
            self._server = await Scheduler(
                host=self._host,
                port=self._port,
                protocol=f"{self._protocol}://",
                security=self._security,
                dashboard_address=_NOWHERE,
                dashboard=False,
            )
        except (OSError, RuntimeError) as error:
            raise ClusterError(
                f"a scheduler can't listen at {self._listen}: {say_cause(error)}",
                hint="check that none is running there; port 0 uses any free port",
            ) from error
        return str(self._server.address)

    async def __aexit__(self, *_: object) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._server.close(), 10)


async def _start_workers(
    stack: AsyncExitStack,
    scheduler: str,
    slots: Sequence[Slot],
    certs: Path | None,
    scratch: Path,
) -> list[Any]:
    if not slots:
        return []
    from distributed import Nanny

    check_address(scheduler, certs)
    security = open_security("worker", certs if scheduler.startswith("tls") else None)
    nannies = [
        Nanny(
            scheduler,
            nthreads=1,
            name=slot.name,
            resources=dict.fromkeys(slot.resources, 1),
            security=security,
            protocol=scheduler.partition(":")[0] + "://",
            host="127.0.0.1" if scheduler.startswith("tcp") else None,
            local_directory=str(scratch),
            memory_limit=0,
            dashboard_address=_NOWHERE,
            dashboard=False,
            death_timeout=60,
            env=_environment(slot),
            silence_logs=logging.CRITICAL,
            config=_CONFIG,
        )
        for slot in slots
    ]
    for number in range(0, len(nannies), 8):  # a few at a time, to avoid overloading the machine
        starting = nannies[number : number + 8]
        stack.push_async_callback(_close, starting)
        try:
            await asyncio.wait_for(asyncio.gather(*starting), 120)
        except (OSError, RuntimeError, asyncio.TimeoutError) as error:
            raise ClusterError(
                f"workers can't join {scheduler}: {say_cause(error)}",
                hint="check that the scheduler is running and that all certificates are from one "
                f"authority; if another worker is called {slots[0].name}, pass --name",
            ) from error
    return nannies


async def _close(nannies: Sequence[Any]) -> None:
    """Stops workers and their jobs, in parallel."""
    await asyncio.gather(*(nanny.close(timeout=2) for nanny in nannies), return_exceptions=True)


def _environment(slot: Slot) -> dict[str, str]:
    """Returns the environment variables of a worker process and its children."""
    environment = {SLOT: slot.model_dump_json()}
    if slot.gpu is not None:
        environment |= {"CUDA_VISIBLE_DEVICES": slot.gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    else:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


async def _scheduler_gone(nannies: Sequence[Any], scheduler: str) -> None:
    """Waits until all nannies have stopped restarting their workers."""
    for nanny in nannies:
        await nanny.finished()
