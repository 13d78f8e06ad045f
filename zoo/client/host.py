"""This machine: which runtimes are installed, which GPUs it has, what it is.

Nothing native is imported: versions come from package metadata, GPUs from ``nvidia-smi``.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from zoo.client.selection import Machine
from zoo.schema.closed import Unknown
from zoo.schema.measurements import Gpu, MachineDescription
from zoo.schema.runtimes import RUNTIME_FACTS, Runtime
from zoo.schema.targets import Arch, RuntimeKind, Toolchain, known_archs

_PLAIN_TENSORRT = {False: 12, True: 13}
"""CUDA of the package that does not name it, by whether it is of version 11 or later."""

IMAGE = "ZOO_IMAGE"
"""Environment variable with the digest of this container's image; who starts it sets it."""

Run = Callable[[list[str]], str]
"""Runs a command and returns its standard output; raises OSError when it can't."""


def run_command(command: list[str]) -> str:
    """Runs a command for at most ten seconds.

    Raises:
        OSError: It is not installed, fails, or takes longer.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from error
    return done.stdout


def installed(kind: RuntimeKind) -> Toolchain | None:
    """Returns the installed toolchain of a runtime, None when there is none."""
    if isinstance(kind, Unknown):
        return None
    for package, cuda in RUNTIME_FACTS[kind].packages:
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        if package == "tensorrt":
            cuda = _PLAIN_TENSORRT[int(found.partition(".")[0]) >= 11]
        return Toolchain(
            kind=kind,
            version=found,
            cuda=cuda,
            os=platform.system().lower(),
            machine=platform.machine().lower(),
        )
    return None


def local_archs(run: Run = run_command) -> list[Arch]:
    """Returns the architectures of this machine's GPUs, without duplicates; none without a GPU."""
    try:
        text = run(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    except OSError:
        return []
    names = {f"sm{line.strip().replace('.', '')}" for line in text.splitlines()}
    return [Arch(name) for name in known_archs() if name in names]


def this_machine(run: Run = run_command) -> Machine:
    """Returns what this machine can run: its GPUs first, then the CPU."""
    archs = (*(arch.name for arch in local_archs(run)), "cpu")
    gpu = describe_gpu(run) if len(archs) > 1 else None
    return Machine(
        archs=archs,
        toolchains=tuple(all_installed().values()),
        driver=gpu.driver if gpu else None,
    )


def describe_gpu(run: Run = run_command) -> Gpu | None:
    """Describes a GPU: name, compute capability, driver, memory; None without one.

    It is this machine's first, or the first of those that a process may see: a worker of a cluster
    has one to itself, named by its UUID.
    """
    fields = {
        "name": "name",
        "compute_capability": "compute_cap",
        "driver": "driver_version",
        "memory_mib": "memory.total",
    }
    query = ",".join(fields.values())
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    only = [f"--id={seen.partition(',')[0]}"] if seen.startswith("GPU-") else []
    try:
        text = run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", *only])
    except OSError:
        return None
    values = [value.strip() for value in (text.splitlines() or [""])[0].split(",")]
    if len(values) != len(fields):
        return None
    return Gpu.model_validate(dict(zip(fields, values, strict=True)))


def describe_machine(run: Run = run_command) -> MachineDescription:
    """Describes this machine: processor, cores, memory, system; GPU and container, if any."""
    gpu = describe_gpu(run)
    stated = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **({"gpu": gpu} if gpu else {}),
        **({"image": image} if (image := os.environ.get(IMAGE)) else {}),
    }
    return MachineDescription.model_validate(stated)


def all_installed() -> dict[RuntimeKind, Toolchain]:
    """Returns the installed toolchains by runtime."""
    return {kind: found for kind in Runtime if (found := installed(kind))}


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


if __name__ == "__main__":  # how another Python is asked what it has
    print(json.dumps({kind: chain.model_dump() for kind, chain in all_installed().items()}))
