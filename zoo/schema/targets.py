"""Targets: where an engine runs. GPU architecture, runtime line and precision.

The label (``sm86-rtx1.7-fp16``) is for people and for file names. Two engines with one label may
still differ in their full :class:`Toolchain`, which is what matching uses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict

from zoo.schema.closed import Unknown, read_member
from zoo.schema.precisions import Placing as Placing
from zoo.schema.precisions import Precision as Precision
from zoo.schema.precisions import Rest as Rest
from zoo.schema.runtimes import RUNTIME_FACTS, AnyRuntime, title_of
from zoo.schema.runtimes import Runtime as Runtime
from zoo.schema.targets_table import PRECISIONS as PRECISIONS
from zoo.schema.targets_table import LineFacts, target_table
from zoo.util.errors import TargetError, UsageError
from zoo.util.names import perhaps

RuntimeKind: TypeAlias = AnyRuntime
"""A runtime, or the name of one from a record that a later version wrote."""

RUNTIME_NAMES: Mapping[str, str] = {kind: facts.title for kind, facts in RUNTIME_FACTS.items()}
"""What people call runtimes; :func:`zoo.schema.runtimes.title_of` also takes unknown ones."""


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
            raise UsageError(
                f"unknown GPU architecture '{text}'.{perhaps(text, known_archs())}",
                hint="GPU= takes " + ", ".join(known_archs()),
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
        match = re.fullmatch(rf"({'|'.join(Runtime)})?(\d+\.\d+)", text)
        if match is None:
            words = [line.asked for line in gpu_lines()]
            raise UsageError(
                f"unknown runtime line '{text}'.{perhaps(text, words)}",
                hint="TRT= takes " + ", ".join(words),
            )
        return cls(Runtime(match[1] or Runtime.TRT), match[2])

    @classmethod
    def read(cls, text: str) -> RuntimeLine:
        """Reads the line of a record's label, whose runtime a later version may have added."""
        kind = text.rstrip("0123456789.")
        return cls(read_member(Runtime, kind), text[len(kind) :])

    @property
    def asked(self) -> str:
        """What ``TRT=`` says: ``11.4``, ``rtx1.7``."""
        return self.version if self.kind == Runtime.TRT else str(self)

    @property
    def title(self) -> str:
        """What people call it: ``TensorRT 11.4``."""
        return f"{title_of(self.kind)} {self.version}"

    def __str__(self) -> str:
        return f"{self.kind}{self.version}"


@dataclass(frozen=True, order=True)
class Target:
    """Where an engine runs; ``str`` and :meth:`parse` are inverses.

    Attributes:
        arch: GPU architecture, or the CPU.
        line: The runtime.
        precision: Of the engine.
        mixed: Whether some of its operators are kept in higher precision.
    """

    arch: Arch
    line: RuntimeLine
    precision: Precision
    mixed: bool = False

    @classmethod
    def parse(cls, text: str) -> Target:
        """Reads a label such as ``sm86-rtx1.7-fp16`` or ``cpu-ort1.32-int8-mixed``.

        Raises:
            UsageError: The text is not a label, or a part of it is unknown.
            TargetError: Its precision is one that the farm does not make.
        """
        parts = text.split("-")
        mixed = parts[3:] == ["mixed"]
        if len(parts) != 3 + mixed:
            raise UsageError(
                f"'{text}' is not a target", hint="a target looks like sm86-rtx1.7-fp16"
            )
        arch, line = Arch.parse(parts[0]), RuntimeLine.parse(parts[1])
        return cls(arch, line, parse_precision(parts[2]), mixed)

    def __str__(self) -> str:
        return f"{self.arch}-{self.line}-{self.precision}" + "-mixed" * self.mixed


@dataclass(frozen=True, kw_only=True)
class Label:
    """A target's label as a record has it, of whatever version; :class:`Target` is the strict one.

    Attributes:
        arch: ``sm86``.
        line: ``rtx1.7``; empty where the label has no such part.
        precision: ``fp16``; empty where the label has no such part.
        rest: What follows; ``mixed`` where operators are kept in higher precision, else nothing
            that this version knows.
    """

    arch: str
    line: str = ""
    precision: str = ""
    rest: str = ""

    @classmethod
    def read(cls, text: str) -> Label:
        """Reads a label whose parts this version need not know."""
        arch, line, precision, rest = (*text.split("-", 3), "", "", "")[:4]
        return cls(arch=arch, line=line, precision=precision, rest=rest)

    @property
    def place(self) -> str:
        """Architecture and runtime line, ``sm86-rtx1.7``."""
        return "-".join(filter(None, (self.arch, self.line)))

    @property
    def cell(self) -> str:
        """The label without the word that operators are kept: what an engine competes for."""
        rest = "" if self.rest == "mixed" else self.rest
        return "-".join(filter(None, (self.arch, self.line, self.precision, rest)))


def arch_of(label: str) -> str:
    """Returns the architecture of a record's label."""
    return Label.read(label).arch


def place_of(label: str) -> str:
    """Returns architecture and runtime line of a record's label."""
    return Label.read(label).place


def cell_of(label: str) -> str:
    """Returns a record's label without ``-mixed``."""
    return Label.read(label).cell


def parse_precision(
    text: str, archs: Sequence[Arch] = (), line: RuntimeLine | None = None
) -> Precision:
    """Reads a precision.

    Args:
        text: What ``PRECISION=`` says.
        archs: What it is asked for on; a refusal then says what these take.
        line: What ``TRT=`` says, None when it is not given.

    Raises:
        UsageError: There is no such precision.
        TargetError: There is, and the farm does not make it: says why, and what it makes.
    """
    for precision in PRECISIONS:
        if precision == text:
            return precision
    recipes = target_table().precision
    if text not in recipes:
        raise UsageError(
            f"unknown precision '{text}'.{perhaps(text, PRECISIONS)}",
            hint="PRECISION= takes " + ", ".join(PRECISIONS),
        )
    without = [arch.name for arch in archs if text not in units_of(arch)]
    reasons = []
    if without:
        with_units = [name for name in known_archs() if text in units_of(Arch(name))]
        verb = "has" if len(without) == 1 else "have"
        reasons.append(
            f"{', '.join(without)} {verb} no {text} units ({', '.join(with_units)} have them)"
        )
    if line is not None and (why_not := line_facts(line).why_not.get(text)):
        reasons.append(why_not)
    if not archs or len(without) < len(archs):
        reasons.append(
            f"{text} is planned, and the farm has no recipe for it yet; it takes "
            f"{recipes[text].recipe}"
        )
    raise TargetError(
        f"no engine in {text}: {'; '.join(reasons)}",
        hint="; ".join(alternatives(arch, line) for arch in archs)
        or "PRECISION= takes " + ", ".join(PRECISIONS),
    )


class Toolchain(BaseModel):
    """What built an engine, to the last digit that decides whether it loads.

    Attributes:
        kind: The runtime; unknown where a later version of this package wrote the record.
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


def known_archs() -> list[str]:
    """Returns the names of all architectures of the table, ``cpu`` first."""
    return list(target_table().arch)


def known_lines() -> list[str]:
    """Returns the runtime lines of the table."""
    return list(target_table().line)


def gpu_lines() -> list[RuntimeLine]:
    """Returns the lines that ``TRT=`` may name."""
    lines = [RuntimeLine.parse(name) for name in known_lines()]
    return [line for line in lines if on_gpu(line.kind)]


def on_gpu(runtime: RuntimeKind) -> bool:
    """Whether a runtime runs on GPUs; nothing is known of one that this version does not know."""
    return not isinstance(runtime, Unknown) and RUNTIME_FACTS[runtime].gpu


def units_of(arch: Arch) -> tuple[str, ...]:
    """Returns the precisions that an architecture's arithmetic units know."""
    return target_table().arch[arch.name].units


def line_facts(line: RuntimeLine) -> LineFacts:
    """Returns what the table says of a line.

    Raises:
        TargetError: It is not in the table.
    """
    try:
        return target_table().line[str(line)]
    except KeyError:
        raise TargetError(
            f"{line.title} is not in the targets table",
            hint="there is " + ", ".join(known_lines()),
        ) from None


def dialect_of(line: RuntimeLine) -> str:
    """Returns the ONNX dialect that a line's parser reads: ``dynamo-20``, ``torchscript-17``.

    Raises:
        TargetError: The line is not in the table.
    """
    return line_facts(line).dialect


@cache
def served_archs(line: RuntimeLine) -> Mapping[str, tuple[Precision, ...]]:
    """Returns what a line takes, by architecture; nothing for one that the table has not."""
    if str(line) not in known_lines():
        return {}
    cells = {name: line_facts(line).cell(name) for name in known_archs()}
    return {name: cell.precisions for name, cell in cells.items() if cell.precisions}


def lines_for(arch: Arch) -> list[RuntimeLine]:
    """Returns the lines that serve an architecture."""
    lines = [RuntimeLine.parse(name) for name in known_lines()]
    return [line for line in lines if arch.name in served_archs(line)]


def alternatives(arch: Arch, line: RuntimeLine | None = None) -> str:
    """Says what an architecture takes: precisions and lines; of one line when that serves it."""
    lines = lines_for(arch)
    if line in lines:
        lines = [line]
    taken = dict.fromkeys(name for one in lines for name in served_archs(one)[arch.name])
    return f"{arch} takes {', '.join(taken)} with {', '.join(one.asked for one in lines)}"


def not_served(arch: Arch, line: RuntimeLine) -> str | None:
    """Says why a line does not serve an architecture and what it serves, or None where it does."""
    if str(line) not in known_lines():
        return f"{line.title} is not in the targets table"
    reason = line_facts(line).cell(arch.name).why_not
    if reason is None:
        return None
    return f"{line} does not serve {arch}: {reason} ({line} serves {', '.join(served_archs(line))})"


def refusal(target: Target, family: str = "") -> str | None:
    """Says why a target can't be had and what can, or None where it can.

    Args:
        target: What is asked for.
        family: Of the model; empty for whether any model has it.
    """
    arch, line, precision = target.arch, target.line, target.precision
    if reason := not_served(arch, line):
        return f"{reason}; {alternatives(arch)}"
    cell, taken = line_facts(line).cell(arch.name), served_archs(line)[arch.name]
    if precision in cell.without.get(family, ()):
        return (
            f"{line.title} has no {precision} of {family} on {arch}: {cell.note}; "
            f"{_where(precision, arch, but=line)}"
        )
    if precision in taken:
        return None
    why_not = line_facts(line).why_not.get(precision)
    if why_not is None and precision not in units_of(arch):
        why_not = f"{arch} has no {precision} units"
    return (
        f"{line.title} has no {precision} on {arch} (it has {', '.join(taken)})"
        + (f": {why_not}" if why_not else "")
        + f"; {_where(precision, arch, but=line)}"
    )


def _where(precision: Precision, arch: Arch, but: RuntimeLine) -> str:
    """Says with which other lines an architecture takes a precision, or else which others do."""
    rest = [line for line in lines_for(arch) if line != but]
    lines = [line.asked for line in rest if precision in served_archs(line)[arch.name]]
    if lines:
        return f"{arch} takes {precision} with {', '.join(lines)}"
    tables = [served_archs(one) for one in gpu_lines()]
    archs = [n for n in known_archs() if any(precision in table.get(n, ()) for table in tables)]
    return f"{precision} is made for {', '.join(archs)}"
