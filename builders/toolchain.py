"""Toolchains: which installed runtime builds for which architecture."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.errors import TargetError, UsageError
from zoo.machine import Run, installed, local_archs, run_command
from zoo.names import perhaps
from zoo.target import (
    RUNTIME_NAMES,
    Arch,
    RuntimeLine,
    Toolchain,
    known_lines,
    served_archs,
)


def default_archs(run: Run = run_command) -> list[Arch]:
    """Returns what ``GPU=`` means when it is not given: this machine's first GPU, else the CPU."""
    return local_archs(run)[:1] or [Arch("cpu")]


def choose_toolchain(arch: Arch, line: RuntimeLine | None, run: Run = run_command) -> Toolchain:
    """Picks the runtime that builds for an architecture.

    Args:
        arch: What to build for.
        line: What ``TRT=`` says, None to choose: the TensorRT installed on a machine with that
            GPU, else TensorRT-RTX where it serves the architecture.
        run: Runs ``nvidia-smi``.

    Raises:
        UsageError: The line that was asked for does not exist or is for another kind of target.
        TargetError: Nothing that is installed serves the architecture.
    """
    if arch.is_cpu:
        return _for_cpu(line)
    if line is None:
        if arch in local_archs(run) and (found := installed("trt")) and _serves(found, arch):
            return found
        if (found := installed("rtx")) and _serves(found, arch):
            return found
        raise TargetError(f"nothing installed here builds for {arch}", hint=_choices(arch))
    if str(line) not in known_lines() or line.kind == "ort":
        gpu_lines = [name for name in known_lines() if not name.startswith("ort")]
        raise UsageError(
            f"no backend for TRT={line}.{perhaps(str(line), gpu_lines)}",
            hint=f"TRT= takes {', '.join(gpu_lines)}",
        )
    found = installed(line.kind)
    if found is None or found.line != line:
        have = f"{found.line} is installed" if found else "it is not installed"
        raise TargetError(
            f"TRT={line}: {have}; an engine is built with exactly the version that will run it",
            hint=_choices(arch),
        )
    if not _serves(found, arch):
        served = ", ".join(served_archs(line))
        raise TargetError(f"{line} does not serve {arch}; it serves {served}", hint=_choices(arch))
    return found


def choose_toolchains(
    archs: Sequence[Arch], line: RuntimeLine | None, run: Run = run_command
) -> dict[Arch, Toolchain]:
    """Picks the runtime for each architecture; ``TRT=`` is about the GPUs among them.

    Raises:
        UsageError: The line does not exist, or there is no GPU that it could be for.
        TargetError: Nothing that is installed serves one of the architectures.
    """
    has_gpu = not all(arch.is_cpu for arch in archs)
    return {
        arch: choose_toolchain(arch, None if arch.is_cpu and has_gpu else line, run)
        for arch in archs
    }


def _for_cpu(line: RuntimeLine | None) -> Toolchain:
    found = installed("ort")
    if found is None:
        raise TargetError(
            "GPU=cpu needs onnxruntime, which is not installed",
            hint="pip install -e '.[farm]' -c constraints.txt",
        )
    if line is not None and line != found.line:
        raise UsageError(
            f"TRT={line} is no runtime for GPU=cpu",
            hint=f"CPU engines are built with {found.line}, which is what is installed",
        )
    if not served_archs(found.line):
        raise TargetError(
            f"onnxruntime {found.version} is installed and {found.line} is not in the targets "
            "table",
            hint="pip install -e '.[farm]' -c constraints.txt",
        )
    return found


def _serves(toolchain: Toolchain, arch: Arch) -> bool:
    return arch.name in served_archs(toolchain.line)


def _choices(arch: Arch) -> str:
    lines = [name for name in known_lines() if arch.name in served_archs(RuntimeLine.parse(name))]
    here = [str(found.line) for kind in RUNTIME_NAMES if (found := installed(kind))]
    return (
        f"lines that serve {arch}: {', '.join(lines) or 'none yet'}; installed here: "
        f"{', '.join(here) or 'none'}"
    )
