"""Targets: where an engine runs. GPU architecture, runtime line and precision.

The label (``sm86-rtx1.7-fp16``) is for people and for file names. Two engines with one label may
still differ in their full :class:`Toolchain`, which is what matching uses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from zoo.errors import TargetError, UsageError
from zoo.names import perhaps
from zoo.toml import toml

Precision = Literal["fp32", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")

RuntimeKind = str
"""``ort``, ``rtx`` or ``trt``; a record may name one that this version does not know yet."""

RUNTIME_NAMES: dict[RuntimeKind, str] = {
    "ort": "ONNX Runtime",
    "rtx": "TensorRT-RTX",
    "trt": "TensorRT",
}


@dataclass(frozen=True, order=True)
class Arch:
    """A GPU architecture by compute capability, or the CPU.

    Attributes:
        name: ``cpu``, or ``sm`` and the compute capability without its dot: ``sm86``.
    """

    name: str

    @classmethod
    def parse(cls, text: str) -> Arch:
        """Reads ``cpu``, ``sm86`` or ``sm120``.

        Raises:
            UsageError: The text names no architecture that this project knows.
        """
        if text not in known_archs():
            lines = [RuntimeLine.parse(name) for name in known_lines()]
            served = list(dict.fromkeys(arch for line in lines for arch in served_archs(line)))
            raise UsageError(
                f"unknown GPU architecture '{text}'.{perhaps(text, served)}",
                hint="GPU= takes " + ", ".join(served),
            )
        return cls(text)

    @property
    def is_cpu(self) -> bool:
        """Whether this is the CPU."""
        return self.name == "cpu"

    @property
    def compute_capability(self) -> tuple[int, int]:
        """The compute capability, ``(8, 6)`` for ``sm86``.

        Raises:
            TargetError: The CPU has none.
        """
        if self.is_cpu:
            raise TargetError("the CPU has no compute capability")
        return divmod(int(self.name[2:]), 10)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, order=True)
class RuntimeLine:
    """A runtime and its major.minor version: ``rtx1.7``, ``trt11.4``, ``ort1.32``."""

    kind: RuntimeKind
    version: str

    @classmethod
    def parse(cls, text: str) -> RuntimeLine:
        """Reads ``rtx1.7``, ``ort1.32``, ``trt11.4`` or, short for the last, ``11.4``.

        Raises:
            UsageError: The text names no runtime line.
        """
        match = re.fullmatch(r"(trt|rtx|ort)?(\d+\.\d+)", text)
        if match is None:
            lines = [name for name in known_lines() if not name.startswith("ort")]
            raise UsageError(
                f"unknown runtime line '{text}'.{perhaps(text, lines)}",
                hint="TRT= takes " + ", ".join(lines),
            )
        return cls(match[1] or "trt", match[2])

    def __str__(self) -> str:
        return f"{self.kind}{self.version}"


@dataclass(frozen=True, order=True)
class Target:
    """Where an engine runs; ``str`` and :meth:`parse` are inverses."""

    arch: Arch
    line: RuntimeLine
    precision: Precision

    @classmethod
    def parse(cls, text: str) -> Target:
        """Reads a label such as ``sm86-rtx1.7-fp16``.

        Raises:
            UsageError: The text is not a label, or a part of it is unknown.
        """
        parts = text.split("-")
        if len(parts) != 3:
            raise UsageError(
                f"'{text}' is not a target", hint="a target looks like sm86-rtx1.7-fp16"
            )
        return cls(Arch.parse(parts[0]), RuntimeLine.parse(parts[1]), parse_precision(parts[2]))

    def __str__(self) -> str:
        return f"{self.arch}-{self.line}-{self.precision}"


def parse_precision(text: str) -> Precision:
    """Reads a precision.

    Raises:
        UsageError: There is no such precision.
    """
    for precision in PRECISIONS:
        if precision == text:
            return precision
    raise UsageError(
        f"unknown precision '{text}'.{perhaps(text, PRECISIONS)}",
        hint="PRECISION= takes " + ", ".join(PRECISIONS),
    )


class Toolchain(BaseModel):
    """What built an engine, to the last digit that decides whether it loads.

    Attributes:
        kind: The runtime.
        version: Its full version, ``1.7.1.116``.
        cuda: CUDA major version that the runtime was made for; None on the CPU.
        os: ``linux`` or ``windows``.
        machine: CPU architecture of the host, ``x86_64``.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    kind: RuntimeKind
    version: str
    cuda: int | None = None
    os: str
    machine: str

    @property
    def line(self) -> RuntimeLine:
        """The line that this toolchain belongs to."""
        return RuntimeLine(self.kind, ".".join(self.version.split(".")[:2]))


@cache
def target_table() -> dict[str, Any]:
    """Returns ``zoo/targets.toml``, parsed."""
    return toml.loads(files("zoo").joinpath("targets.toml").read_text(encoding="utf-8"))


def known_archs() -> list[str]:
    """Returns the names of all architectures of the table, ``cpu`` first."""
    return list(target_table()["arch"])


def known_lines() -> list[str]:
    """Returns the runtime lines of the table."""
    return list(target_table()["line"])


def served_archs(line: RuntimeLine) -> dict[str, tuple[str, ...]]:
    """Returns what a runtime line serves.

    Returns:
        Architecture name to the precisions that it takes there; empty for a line that the table
        does not have.
    """
    cells = target_table()["line"].get(str(line), {}).get("serves", {})
    return {arch: tuple(precisions) for arch, precisions in cells.items()}


def refusal(target: Target) -> str | None:
    """Says why a target can't be had, or None where it can."""
    served = served_archs(target.line)
    name = f"{RUNTIME_NAMES[target.line.kind]} {target.line.version}"
    if not served:
        return f"{name} is not in the targets table"
    if target.arch.name not in served:
        return f"{name} does not serve {target.arch}; it serves {', '.join(served)}"
    if target.precision not in served[target.arch.name]:
        reason = target_table()["line"][str(target.line)].get("why_not", {}).get(target.precision)
        takes = ", ".join(served[target.arch.name])
        return f"{name} has no {target.precision} on {target.arch} (it has {takes})" + (
            f": {reason}" if reason else ""
        )
    return None
