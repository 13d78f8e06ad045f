"""Toolchains: which installed runtime builds for which architecture.

TensorRT-RTX builds for any GPU that it supports, on any machine. TensorRT times its tactics on the
GPU: it builds only on a machine with that GPU, with exactly the line that is installed there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from zoo.client.host import Run, describe_gpu, installed, local_archs, run_command
from zoo.schema.closed import Unknown
from zoo.schema.runtimes import RUNTIME_FACTS, cpu_runtimes, gpu_runtimes, is_portable, title_of
from zoo.schema.targets import (
    Arch,
    Runtime,
    RuntimeKind,
    RuntimeLine,
    Toolchain,
    alternatives,
    gpu_lines,
    known_lines,
    line_facts,
    lines_for,
    not_served,
    on_gpu,
    served_archs,
)
from zoo.util.errors import TargetError, UsageError
from zoo.util.names import perhaps

Find = Callable[[RuntimeKind], Toolchain | None]
"""Returns the installed toolchain of a runtime; None if it is not installed."""


@dataclass(frozen=True, kw_only=True)
class _Here:
    """GPUs, driver and runtimes of this machine.

    Attributes:
        archs: Architectures of its GPUs.
        driver: Version of its NVIDIA driver; None if unknown.
        toolchains: Installed toolchains by runtime.
    """

    archs: tuple[Arch, ...]
    driver: str | None
    toolchains: Mapping[RuntimeKind, Toolchain]


def default_archs(run: Run = run_command) -> list[Arch]:
    """Returns the default of ``GPU=``: this machine's first GPU, else the CPU."""
    return local_archs(run)[:1] or [Arch("cpu")]


def choose_toolchain(
    arch: Arch, line: RuntimeLine | None, run: Run = run_command, find: Find = installed
) -> Toolchain:
    """Returns the toolchain that builds for an architecture.

    Args:
        arch: Architecture to build for.
        line: Line that ``TRT=`` names; None for the default: the installed TensorRT if this
            machine has that GPU, else TensorRT-RTX if it serves the architecture.
        run: Runs ``nvidia-smi``.
        find: Returns the installed toolchain of a runtime.

    Raises:
        UsageError: The line does not exist or is for another kind of target.
        TargetError: The line does not serve the architecture, or this machine can't build for it;
            the message names the missing GPU, package or driver, the hint what works here.
    """
    if arch.is_cpu:
        return _for_cpu(line, find)
    here = _probe(run, find)
    if line is None:
        return _default(arch, here)
    if line not in gpu_lines():
        words = [known.asked for known in gpu_lines()]
        near = " It is for GPU=cpu." if not on_gpu(line.kind) else perhaps(line.asked, words)
        raise UsageError(
            f"no backend for TRT={line.asked}.{near}",
            hint=f"TRT= is one of {', '.join(words)}",
        )
    if reason := not_served(arch, line):
        raise TargetError(reason, hint=_choices(arch, here))
    if problem := _problem(line, arch, here):
        what, remedy = problem
        raise TargetError(what, hint=f"{remedy}; {_choices(arch, here)}")
    return here.toolchains[line.kind]


def choose_toolchains(
    archs: Sequence[Arch],
    line: RuntimeLine | None,
    run: Run = run_command,
    find: Find = installed,
) -> dict[Arch, Toolchain]:
    """Returns the toolchain of each architecture; ``TRT=`` applies to GPU targets only.

    Raises:
        UsageError: The line does not exist, or no target is a GPU.
        TargetError: No installed runtime serves one of the architectures.
    """
    has_gpu = not all(arch.is_cpu for arch in archs)
    return {
        arch: choose_toolchain(arch, None if arch.is_cpu and has_gpu else line, run, find)
        for arch in archs
    }


def _probe(run: Run, find: Find) -> _Here:
    gpu = describe_gpu(run)
    toolchains: dict[RuntimeKind, Toolchain] = {
        kind: toolchain for kind in Runtime if (toolchain := find(kind))
    }
    driver = gpu.driver if gpu else None
    return _Here(archs=tuple(local_archs(run)), driver=driver, toolchains=toolchains)


def _default(arch: Arch, here: _Here) -> Toolchain:
    """Returns the first installed toolchain that builds for an architecture: TensorRT before RTX.

    Raises:
        TargetError: Neither builds for the architecture here; the message has a reason for each.
    """
    reasons, remedies = [], []
    for kind in gpu_runtimes():
        toolchain = here.toolchains.get(kind)
        line = toolchain.line if toolchain else _newest(kind, arch)
        if reason := not_served(arch, line):
            reasons.append(reason)
        elif problem := _problem(line, arch, here):
            reasons.append(problem[0])
            remedies.append(problem[1])
        else:
            return here.toolchains[kind]
    raise TargetError(
        f"this machine can't build for {arch}: {'; '.join(reasons)}",
        hint="; ".join(filter(None, [" or ".join(remedies), _choices(arch, here)])),
    )


def _newest(kind: RuntimeKind, arch: Arch) -> RuntimeLine:
    """Returns a runtime's newest line that serves the architecture, else its newest line."""
    lines = [line for line in [*lines_for(arch), *gpu_lines()] if line.kind == kind]
    return lines[0]


def _problem(line: RuntimeLine, arch: Arch, here: _Here) -> tuple[str, str] | None:
    """Returns why this machine can't build with a line that serves the architecture.

    Returns:
        What is missing and how to get it; None if nothing is missing.
    """
    if not is_portable(line.kind) and arch not in here.archs:
        return _elsewhere(line.title, arch, here), f"build it on a machine with an {arch} GPU"
    toolchain = here.toolchains.get(line.kind)
    if toolchain is None:
        return f"{line.title} is not installed", _install(line)
    if toolchain.line != line:
        what = (
            f"{title_of(line.kind)} {toolchain.version} is installed, not {line.version}; an "
            "engine is built with exactly the version that will run it"
        )
        return what, _install(line)
    needed = line_facts(line).cell(arch.name).driver.get(toolchain.cuda or 0)
    driver = _major(here.driver)
    if not is_portable(line.kind) and needed and driver and driver < needed:
        what = f"{line.title} for CUDA {toolchain.cuda} needs driver {needed} or later"
        return f"{what}; this machine has {here.driver}", f"install the NVIDIA driver {needed}"
    return None


def _elsewhere(name: str, arch: Arch, here: _Here) -> str:
    have = ", ".join(local.name for local in here.archs)
    return f"{name} builds an engine only on the GPU that will run it; this machine has " + (
        f"{have}, not {arch}" if have else "no GPU (nvidia-smi is missing or finds no driver)"
    )


def _install(line: RuntimeLine) -> str:
    facts = line_facts(line)
    image = facts.container
    container = f", or the container {image}" if image not in ("none", "unlocked") else ""
    return facts.install + (f" ({facts.note})" if facts.note else "") + container


def _major(driver: str | None) -> int | None:
    """Returns 580 for ``580.95.05``; None if the text is not a driver version."""
    match = re.match(r"(\d{3,})\.\d", driver or "")
    return int(match[1]) if match else None


def _choices(arch: Arch, here: _Here) -> str:
    lines = lines_for(arch)
    working = [line.asked for line in lines if not _problem(line, arch, here)]
    serving = ", ".join(line.asked for line in lines)
    return f"lines that serve {arch}: {serving}; TRT= that works here: " + (
        ", ".join(working) or "none"
    )


def _for_cpu(line: RuntimeLine | None, find: Find) -> Toolchain:
    """Returns the preferred installed toolchain for the CPU that the targets table lists.

    Raises:
        UsageError: The line is none for the CPU.
        TargetError: It is not installed, none is, or the table lists none of those that are.
    """
    if line is not None and line.kind not in cpu_runtimes():
        raise UsageError(
            f"TRT={line.asked} is not a runtime for GPU=cpu",
            hint=f"omit TRT=; {alternatives(Arch('cpu'))}",
        )
    toolchains = [toolchain for kind in cpu_runtimes() if (toolchain := find(kind))]
    if not toolchains:
        modules = " or ".join(RUNTIME_FACTS[kind].module for kind in cpu_runtimes())
        raise TargetError(
            f"GPU=cpu needs {modules}, which is not installed",
            hint="pip install -e '.[farm]' -c constraints.txt",
        )
    matching = [toolchain for toolchain in toolchains if line in (None, toolchain.line)]
    if not matching and line is not None:
        raise TargetError(f"{line.title} is not installed", hint=f"{_install(line)}; or omit TRT=")
    for toolchain in matching:
        if served_archs(toolchain.line):
            return toolchain
    raise TargetError(
        "; ".join(map(_unlisted, matching)), hint="pip install -e '.[farm]' -c constraints.txt"
    )


def _unlisted(toolchain: Toolchain) -> str:
    """Returns why an installed toolchain can't be used: the targets table lacks its line."""
    kinds = {name: RuntimeLine.parse(name).kind for name in known_lines()}
    supported = ", ".join(name for name, kind in kinds.items() if kind == toolchain.kind)
    return (
        f"{_module(toolchain.kind)} {toolchain.version} is installed, but the targets table has "
        f"{supported}, not {toolchain.line}"
    )


def _module(kind: RuntimeKind) -> str:
    return str(kind) if isinstance(kind, Unknown) else RUNTIME_FACTS[kind].module
