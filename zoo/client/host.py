"""Detects this machine's runtimes, GPUs and hardware.

Imports no native library: versions come from package metadata and GPUs from ``nvidia-smi``.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from zoo.client.selection import Machine
from zoo.schema.closed import Unknown
from zoo.schema.measurements import Gpu, MachineDescription
from zoo.schema.runtimes import RUNTIME_FACTS, Runtime
from zoo.schema.targets import Arch, RuntimeKind, Toolchain, known_archs

_PLAIN_TENSORRT = {False: 12, True: 13}
"""CUDA version of the ``tensorrt`` package, by whether its version is 11 or later."""

IMAGE = "ZOO_IMAGE"
"""Environment variable with the digest of this container's image, set by its launcher."""

Run = Callable[[list[str]], str]
"""Runs a command and returns its standard output; raises OSError on failure."""


def run_command(command: list[str]) -> str:
    """Runs a command with a timeout of ten seconds and returns its standard output.

    Raises:
        OSError: The command is not installed, fails or times out.
    """
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from error
    return result.stdout


def installed(kind: RuntimeKind) -> Toolchain | None:
    """Returns the installed toolchain of a runtime, or None if it is not installed."""
    if isinstance(kind, Unknown):
        return None
    for package, cuda in RUNTIME_FACTS[kind].packages:
        try:
            installed_version = version(package)
        except PackageNotFoundError:
            continue
        if package == "tensorrt":
            cuda = _PLAIN_TENSORRT[int(installed_version.partition(".")[0]) >= 11]
        return Toolchain(
            kind=kind,
            version=installed_version,
            cuda=cuda,
            os=platform.system().lower(),
            machine=platform.machine().lower(),
        )
    return None


def local_archs(run: Run = run_command) -> list[Arch]:
    """Returns the distinct architectures of this machine's GPUs; empty without a GPU."""
    try:
        text = run(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    except OSError:
        return []
    names = {f"sm{line.strip().replace('.', '')}" for line in text.splitlines()}
    return [Arch(name) for name in known_archs() if name in names]


@dataclass(frozen=True, kw_only=True)
class VisibleGpu:
    """A GPU that this process may use.

    Attributes:
        uuid: Its UUID, which ``CUDA_VISIBLE_DEVICES`` takes.
        arch: Its architecture, such as ``sm90``.
        free_mib: Free memory in MiB, None if it does not tell.
    """

    uuid: str
    arch: str
    free_mib: int | None = None


def visible_gpus(run: Run = run_command) -> list[VisibleGpu]:
    """Returns the GPUs that this process may use: those of ``CUDA_VISIBLE_DEVICES``, or all.

    They are in the order of that variable, or of ``nvidia-smi``. Instances of a GPU (MIG) are not
    among them.
    """
    try:
        query = "--query-gpu=index,uuid,compute_cap,memory.free"
        text = run(["nvidia-smi", query, "--format=csv,noheader,nounits"])
    except OSError:
        return []
    gpus: dict[str, VisibleGpu] = {}
    for line in text.splitlines():
        index, uuid, capability, free = (part.strip() for part in line.split(","))
        gpus[index] = VisibleGpu(
            uuid=uuid,
            arch=f"sm{capability.replace('.', '')}",
            free_mib=int(free) if free.isdecimal() else None,
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(gpus.values())
    return [
        gpu
        for name in map(str.strip, visible.split(","))
        for index, gpu in gpus.items()
        if name == index or (name.startswith("GPU-") and gpu.uuid.startswith(name))
    ]


def this_machine(run: Run = run_command) -> Machine:
    """Returns this machine's architectures (GPUs before CPU), runtimes and driver."""
    archs = (*(arch.name for arch in local_archs(run)), "cpu")
    gpu = describe_gpu(run) if len(archs) > 1 else None
    return Machine(
        archs=archs,
        toolchains=tuple(all_installed().values()),
        driver=gpu.driver if gpu else None,
    )


def describe_gpu(run: Run = run_command) -> Gpu | None:
    """Returns name, compute capability, driver and memory of the first GPU; None without one.

    If ``CUDA_VISIBLE_DEVICES`` selects GPUs by UUID, as for cluster workers, the first of those
    is described.
    """
    fields = {
        "name": "name",
        "compute_capability": "compute_cap",
        "driver": "driver_version",
        "memory_mib": "memory.total",
    }
    query = ",".join(fields.values())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    only = [f"--id={visible.partition(',')[0]}"] if visible.startswith("GPU-") else []
    try:
        text = run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", *only])
    except OSError:
        return None
    values = [value.strip() for value in (text.splitlines() or [""])[0].split(",")]
    if len(values) != len(fields):
        return None
    return Gpu.model_validate(dict(zip(fields, values, strict=True)))


def describe_machine(run: Run = run_command) -> MachineDescription:
    """Returns this machine's CPU, cores, memory and OS, and its GPU and container if any."""
    gpu = describe_gpu(run)
    description = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **({"gpu": gpu} if gpu else {}),
        **({"image": image} if (image := os.environ.get(IMAGE)) else {}),
    }
    return MachineDescription.model_validate(description)


def all_installed() -> dict[RuntimeKind, Toolchain]:
    """Returns the installed toolchains by runtime."""
    return {kind: toolchain for kind in Runtime if (toolchain := installed(kind))}


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


if __name__ == "__main__":  # run with another Python to list the runtimes installed there
    print(json.dumps({kind: entry.model_dump() for kind, entry in all_installed().items()}))
