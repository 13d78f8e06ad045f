"""Toolchains: which installed runtime builds for which architecture.

TensorRT-RTX builds for any GPU that it serves, on any machine. TensorRT itself times its tactics on
the GPU: it builds only where that GPU is, with exactly the line that is installed there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from zoo.client.host import Run, describe_gpu, installed, local_archs, run_command
from zoo.schema.runtimes import gpu_runtimes, is_portable, title_of
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
"""Returns the installed toolchain of a runtime, None when there is none."""


@dataclass(frozen=True, kw_only=True)
class _Here:
    """What this machine has.

    Attributes:
        archs: Of its GPUs.
        driver: Version of its NVIDIA driver, None when it is not known.
        found: The installed toolchains, by runtime.
    """

    archs: tuple[Arch, ...]
    driver: str | None
    found: Mapping[RuntimeKind, Toolchain]


def default_archs(run: Run = run_command) -> list[Arch]:
    """Returns what ``GPU=`` means when it is not given: this machine's first GPU, else the CPU."""
    return local_archs(run)[:1] or [Arch("cpu")]


def choose_toolchain(
    arch: Arch, line: RuntimeLine | None, run: Run = run_command, find: Find = installed
) -> Toolchain:
    """Picks the runtime that builds for an architecture.

    Args:
        arch: What to build for.
        line: What ``TRT=`` says, None to choose: the TensorRT installed on a machine with that
            GPU, else TensorRT-RTX where it serves the architecture.
        run: Runs ``nvidia-smi``.
        find: Looks up what is installed.

    Raises:
        UsageError: The line that was asked for does not exist or is for another kind of target.
        TargetError: The line does not serve the architecture, or this machine can't build for it:
            says which GPU, package or driver is missing, and what works here.
    """
    if arch.is_cpu:
        return _for_cpu(line, find)
    here = _look_around(run, find)
    if line is None:
        return _default(arch, here)
    if line not in gpu_lines():
        words = [one.asked for one in gpu_lines()]
        near = " It is for GPU=cpu." if not on_gpu(line.kind) else perhaps(line.asked, words)
        raise UsageError(
            f"no backend for TRT={line.asked}.{near}",
            hint=f"TRT= takes {', '.join(words)}",
        )
    if reason := not_served(arch, line):
        raise TargetError(reason, hint=_choices(arch, here))
    if problem := _problem(line, arch, here):
        what, remedy = problem
        raise TargetError(what, hint=f"{remedy}; {_choices(arch, here)}")
    return here.found[line.kind]


def choose_toolchains(
    archs: Sequence[Arch],
    line: RuntimeLine | None,
    run: Run = run_command,
    find: Find = installed,
) -> dict[Arch, Toolchain]:
    """Picks the runtime for each architecture; ``TRT=`` is about the GPUs among them.

    Raises:
        UsageError: The line does not exist, or there is no GPU that it could be for.
        TargetError: Nothing that is installed serves one of the architectures.
    """
    has_gpu = not all(arch.is_cpu for arch in archs)
    return {
        arch: choose_toolchain(arch, None if arch.is_cpu and has_gpu else line, run, find)
        for arch in archs
    }


def _look_around(run: Run, find: Find) -> _Here:
    gpu = describe_gpu(run)
    found: dict[RuntimeKind, Toolchain] = {kind: chain for kind in Runtime if (chain := find(kind))}
    return _Here(archs=tuple(local_archs(run)), driver=gpu.driver if gpu else None, found=found)


def _default(arch: Arch, here: _Here) -> Toolchain:
    """Picks among what is installed: TensorRT before TensorRT-RTX.

    Raises:
        TargetError: Neither builds for the architecture here; says why not, for each.
    """
    reasons, remedies = [], []
    for kind in gpu_runtimes():
        found = here.found.get(kind)
        line = found.line if found else _newest(kind, arch)
        if reason := not_served(arch, line):
            reasons.append(reason)
        elif problem := _problem(line, arch, here):
            reasons.append(problem[0])
            remedies.append(problem[1])
        else:
            return here.found[kind]
    raise TargetError(
        f"nothing here builds for {arch}: {'; '.join(reasons)}",
        hint="; ".join(filter(None, [" or ".join(remedies), _choices(arch, here)])),
    )


def _newest(kind: RuntimeKind, arch: Arch) -> RuntimeLine:
    """Returns the first line of a runtime in the table, of those that serve the architecture."""
    lines = [line for line in [*lines_for(arch), *gpu_lines()] if line.kind == kind]
    return lines[0]


def _problem(line: RuntimeLine, arch: Arch, here: _Here) -> tuple[str, str] | None:
    """Says why this machine can't build with a line that serves the architecture.

    Returns:
        What is missing, and what to do about it; None where nothing is.
    """
    if not is_portable(line.kind) and arch not in here.archs:
        return _elsewhere(line.title, arch, here), f"build it on a machine with an {arch} GPU"
    found = here.found.get(line.kind)
    if found is None:
        return f"{line.title} is not installed", _install(line)
    if found.line != line:
        what = (
            f"{title_of(line.kind)} {found.version} is installed, not {line.version}; an "
            "engine is built with exactly the version that will run it"
        )
        return what, _install(line)
    needed = line_facts(line).cell(arch.name).driver.get(found.cuda or 0)
    driver = _major(here.driver)
    if not is_portable(line.kind) and needed and driver and driver < needed:
        what = f"{line.title} for CUDA {found.cuda} needs driver {needed} or later"
        return f"{what}; this machine has {here.driver}", f"install the NVIDIA driver {needed}"
    return None


def _elsewhere(name: str, arch: Arch, here: _Here) -> str:
    have = ", ".join(one.name for one in here.archs)
    return f"{name} builds an engine on the very GPU that runs it; this machine has " + (
        f"{have}, not {arch}" if have else "no GPU (nvidia-smi is missing or finds no driver)"
    )


def _install(line: RuntimeLine) -> str:
    facts = line_facts(line)
    image = facts.container
    other = f", or the container {image}" if image not in ("none", "unlocked") else ""
    return facts.install + (f" ({facts.note})" if facts.note else "") + other


def _major(driver: str | None) -> int | None:
    """Reads ``580`` from ``580.95.05``; None from what is no driver version."""
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
    found = find(Runtime.ORT)
    if found is None:
        raise TargetError(
            "GPU=cpu needs onnxruntime, which is not installed",
            hint="pip install -e '.[farm]' -c constraints.txt",
        )
    if line is not None and line != found.line:
        raise UsageError(
            f"TRT={line.asked} is no runtime for GPU=cpu",
            hint=f"leave TRT= out; {alternatives(Arch('cpu'))}",
        )
    if not served_archs(found.line):
        raise TargetError(
            f"onnxruntime {found.version} is installed and {found.line} is not in the targets "
            f"table, which has {', '.join(name for name in known_lines() if name[:3] == 'ort')}",
            hint="pip install -e '.[farm]' -c constraints.txt",
        )
    return found
