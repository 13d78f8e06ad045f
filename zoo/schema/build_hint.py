"""What to do where no engine fits: a command that builds one, if the farm would accept it."""

from __future__ import annotations

from collections.abc import Collection

from zoo.schema.precisions import Precision
from zoo.schema.targets import (
    Arch,
    RuntimeLine,
    Target,
    gpu_lines,
    known_archs,
    lines_for,
    refusal,
)
from zoo.util.names import enumerated


def build_hint(
    model: str,
    *,
    arch: str | None = None,
    precision: str | None = None,
    line: RuntimeLine | None = None,
    family: str = "",
) -> str | None:
    """Returns how an engine is built, as a command of the farm.

    People who installed the package alone have no ``make``, so the text says where it runs.

    Args:
        model: The model.
        arch: The GPU architecture, or ``cpu``; None for that of the machine that builds.
        precision: The precision; None for all.
        line: The runtime's version; None for the farm's choice.
        family: The model's family.

    Returns:
        None if the farm would refuse: it does not know the architecture or version, or the
        combination is not supported.
    """
    words = [f"MODELS={model}"]
    if arch is not None:
        if arch not in known_archs():
            return None
        words.append(f"GPU={arch}")
    if line is not None:
        if line not in gpu_lines() or (arch and line not in lines_for(Arch(arch))):
            return None
        words.append(f"TRT={line.asked}")
    if precision is not None:
        if arch is not None and precision not in buildable(arch, family, line):
            return None
        if arch is not None and line is None:
            words += _line_for(arch, precision, family)
        words.append(f"PRECISION={precision}")
    return f"to build one, in a checkout of the farm: make zoo {' '.join(words)}"


def _line_for(arch: str, precision: str, family: str) -> list[str]:
    """Returns the variable for a runtime that supports a precision, if the default one does not."""
    lines = lines_for(Arch(arch))
    good = [line for line in lines if precision in buildable(arch, family, line)]
    return [] if good[0] == lines[0] else [f"TRT={good[0].asked}"]


def buildable(
    arch: str, family: str = "", line: RuntimeLine | None = None
) -> tuple[Precision, ...]:
    """Returns the precisions that the farm builds for an architecture, with any runtime or one."""
    if arch not in known_archs():
        return ()
    lines = [line] if line is not None else lines_for(Arch(arch))
    return tuple(
        precision
        for precision in Precision
        if any(refusal(Target(Arch(arch), each, precision), family) is None for each in lines)
    )


def no_precision_hint(model: str, arch: str, precision: str, published: Collection[str]) -> str:
    """Returns what to use in place of a precision that no engine can have on an architecture.

    Args:
        model: The model.
        arch: The architecture.
        precision: The precision.
        published: Precisions of the engines that there are for the architecture.
    """
    others = [str(other) for other in Precision if other in published]
    if others:
        return f"{arch} has no {precision}: use --precision {enumerated(others, 'or')}"
    if hint := build_hint(model, arch=arch):
        return f"{arch} has no {precision}; {hint}"
    return f"the farm builds no engines for {arch}"
