"""This machine: which runtimes are installed, which GPUs it has, what it is.

Nothing native is imported: versions come from package metadata, GPUs from ``nvidia-smi``.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zoo.selection import Machine
from zoo.target import RUNTIME_NAMES, Arch, RuntimeKind, Toolchain, known_archs

# Package, and the CUDA major version that it was made for.
_PACKAGES: dict[RuntimeKind, tuple[tuple[str, int | None], ...]] = {
    "ort": (("onnxruntime", None),),
    "rtx": (("tensorrt-rtx-cu13", 13),),
    "trt": (("tensorrt-cu13", 13), ("tensorrt-cu12", 12), ("tensorrt", 12)),
}

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
    for package, cuda in _PACKAGES[kind]:
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
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
    toolchains = tuple(found for kind in RUNTIME_NAMES if (found := installed(kind)))
    return Machine(archs=archs, toolchains=toolchains)


def describe_machine() -> dict[str, Any]:
    """Describes this machine: processor, cores, memory, system."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()
