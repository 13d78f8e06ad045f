"""Detects what this machine can build and returns it as slots.

Each runtime is imported in a child process, because native libraries crash if a driver is missing
or too old. Runtimes that can't be imported are left out, with the reason.
"""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from builders.executors.dask.resources import EXPORT, Slot, build_name, run_name, toolchain_name
from builders.paths import ROOT
from builders.toolchains.installed import choose_toolchain
from builders.toolchains.interpreter import toolchains_of
from builders.toolchains.worker_environment import worker_environment
from zoo.client.host import Run, all_installed, run_command
from zoo.schema.closed import Unknown
from zoo.schema.runtimes import RUNTIME_FACTS
from zoo.schema.targets import Arch, RuntimeKind, Toolchain, known_archs, on_gpu, served_archs
from zoo.util.causes import end_of
from zoo.util.errors import TargetError
from zoo.util.version import __version__

_EXPORTERS = ("torch", "timm", "onnx", "onnxscript")

Imports = Callable[[str, str], str | None]
"""Imports a module in a Python interpreter; returns the error, None if there is none."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        uuid: Identifies it regardless of the order in which programs list GPUs.
        arch: Its architecture.
    """

    uuid: str
    arch: Arch


def probe(
    python: str = "",
    cpu_slots: int = 1,
    *,
    say: Callable[[str], None],
    run: Run = run_command,
    host: str | None = None,
) -> list[Slot]:
    """Returns the slots of this machine.

    Args:
        python: The Python that builds and verifies; this one if empty.
        cpu_slots: Number of workers without a GPU: for exports, CPU engines, and TensorRT-RTX
            engines for other machines' GPUs.
        say: Called with what is left out and why.
        run: Runs ``nvidia-smi``.
        host: Name of this machine; its host name if None.

    Returns:
        A slot per GPU, and the slots without a GPU.
    """
    installed = toolchains_of(python) if python else all_installed()
    chains = _working(installed, python or sys.executable, imports, say)
    missing = [name for name in _EXPORTERS if importlib.util.find_spec(name) is None]
    if missing and cpu_slots:
        say(f"export: left out, there is no {', '.join(missing)}")
    return make_slots(
        host or platform.node(), chains, gpus(run), python, cpu_slots, run, exports=not missing
    )


def make_slots(
    host: str,
    chains: Mapping[RuntimeKind, Toolchain],
    devices: Sequence[Gpu],
    python: str,
    cpu_slots: int,
    run: Run = run_command,
    *,
    exports: bool,
) -> list[Slot]:
    """Returns the slots of a machine with these toolchains and GPUs."""
    runs_cpu = {
        word
        for chain in chains.values()
        if not on_gpu(chain.kind)
        for word in (build_name(Arch("cpu"), chain.line), run_name(Arch("cpu"), chain.line))
    }
    anywhere = {
        build_name(arch, chain.line)
        for chain in chains.values()
        if _builds_anywhere(chain)
        for arch in map(Arch, served_archs(chain.line))
    }
    slots = []
    for number, gpu in enumerate(devices):
        words = set()
        for chain in chains.values():
            if on_gpu(chain.kind) and _builds(gpu.arch, chain, chains, run):
                words |= {build_name(gpu.arch, chain.line), run_name(gpu.arch, chain.line)}
                words |= {w for w in anywhere if _builds_anywhere(chain)}
        slots.append(_slot(f"{host}-gpu{number}", host, words, chains, python, gpu.uuid))
    without_gpu = runs_cpu | anywhere | ({EXPORT} if exports else set())
    for number in range(cpu_slots):
        slots.append(_slot(f"{host}-cpu{number}", host, without_gpu, chains, python, None))
    return [slot for slot in slots if slot.resources]


def _builds_anywhere(chain: Toolchain) -> bool:
    """Whether a toolchain builds engines for GPUs that this machine does not have."""
    kind = chain.kind
    if isinstance(kind, Unknown):
        return False
    return RUNTIME_FACTS[kind].gpu and RUNTIME_FACTS[kind].portable


def gpus(run: Run = run_command) -> list[Gpu]:
    """Returns this machine's supported GPUs; empty without a driver."""
    try:
        text = run(["nvidia-smi", "--query-gpu=uuid,compute_cap", "--format=csv,noheader"])
    except OSError:
        return []
    rows = [line.split(",") for line in text.splitlines() if line.count(",") == 1]
    named = [(uuid.strip(), f"sm{cap.strip().replace('.', '')}") for uuid, cap in rows]
    return [Gpu(uuid=uuid, arch=Arch(name)) for uuid, name in named if name in known_archs()]


def imports(python: str, module: str) -> str | None:
    """Imports a module in a child process, which may crash; see :data:`Imports`."""
    command = [python, "-c", f"import {module}"]
    try:
        environment = worker_environment(weights=False)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"importing {module} died of signal {-done.returncode}"
    return end_of(done.stderr, f"importing {module} failed")


def _working(
    installed: Mapping[RuntimeKind, Toolchain],
    python: str,
    tried: Imports,
    say: Callable[[str], None],
) -> dict[RuntimeKind, Toolchain]:
    """Returns the toolchains whose runtimes import."""
    working: dict[RuntimeKind, Toolchain] = {}
    for kind, chain in installed.items():
        if isinstance(kind, Unknown):
            say(f"{chain.line}: left out, this version does not know it")
        elif reason := tried(python, RUNTIME_FACTS[kind].module):
            say(f"{chain.line}: left out, {reason}")
        else:
            working[kind] = chain
    return working


def _builds(
    arch: Arch, chain: Toolchain, chains: Mapping[RuntimeKind, Toolchain], run: Run
) -> bool:
    """Whether a toolchain builds for a local GPU, by the targets table and the driver."""
    try:
        return choose_toolchain(arch, chain.line, run, chains.get) == chain
    except TargetError:
        return False


def _slot(
    name: str,
    host: str,
    words: set[str],
    chains: Mapping[RuntimeKind, Toolchain],
    python: str,
    gpu: str | None,
) -> Slot:
    exact = {str(chain.line): chain for chain in chains.values()}
    used = {line: chain for line, chain in exact.items() if any(w.endswith(line) for w in words)}
    return Slot(
        name=name,
        host=host,
        gpu=gpu,
        resources=frozenset(words | {toolchain_name(chain) for chain in used.values()}),
        toolchains=tuple(used.values()),
        python=python,
        version=__version__,
    )
