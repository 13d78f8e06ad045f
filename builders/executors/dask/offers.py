"""Selects which toolchain of a cluster builds for which architecture. Pure functions of data."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from builders.executors.dask.resources import (
    Slot,
    archs_run,
    build_name,
    describe,
    run_name,
    toolchain_name,
)
from zoo.schema.closed import Unknown
from zoo.schema.runtimes import preference_of
from zoo.schema.targets import Arch, RuntimeLine, Toolchain
from zoo.util.errors import ClusterError


def choose_toolchains(
    slots: Collection[Slot], archs: Sequence[Arch], line: RuntimeLine | None
) -> dict[Arch, Toolchain]:
    """Selects a toolchain for each architecture from those of the workers.

    Args:
        slots: The workers.
        archs: The architectures to build for.
        line: The runtime line in ``TRT=``, which applies to GPUs only; None for any.

    Raises:
        ClusterError: No worker builds for one of them; the hint lists what the workers build.
    """
    has_gpu = not all(arch.is_cpu for arch in archs)
    return {arch: _choose(slots, arch, None if arch.is_cpu and has_gpu else line) for arch in archs}


def _choose(slots: Collection[Slot], arch: Arch, line: RuntimeLine | None) -> Toolchain:
    candidates = [
        chain
        for slot in slots
        for chain in slot.toolchains
        if not isinstance(chain.kind, Unknown)  # a worker of a later version may have one
        and build_name(arch, chain.line) in slot.resources
        and line in (None, chain.line)
    ]
    if not candidates:
        wanted = build_name(arch, line) if line else f"engines for {arch}"
        raise ClusterError(
            f"no worker can build {wanted}",
            hint=f"{describe(slots)}; zoo-farm cluster worker adds the machine that it runs on",
        )
    return max(candidates, key=lambda chain: (-preference_of(chain.kind), _numbers(chain.version)))


def runs_on(slots: Collection[Slot], archs: Sequence[Arch], toolchain: Toolchain) -> Arch | None:
    """Returns the first architecture on which a worker can run the toolchain's engines."""
    exact = toolchain_name(toolchain)
    for arch in archs:
        if any(slot.has({run_name(arch, toolchain.line), exact}) for slot in slots):
            return arch
    return None


def default_archs(slots: Collection[Slot]) -> list[Arch]:
    """Returns the default of ``GPU=``: the workers' GPUs, or the CPU if they have none."""
    running = {arch for slot in slots for arch in archs_run(slot.resources)}
    return [Arch(name) for name in sorted(running - {"cpu"})] or [Arch("cpu")]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
