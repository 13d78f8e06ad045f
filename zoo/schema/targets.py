"""Targets: the GPU architecture, runtime line and precision of an engine.

The label (``sm86-rtx1.7-fp16``) is for people and file names. Two engines with the same label may
differ in their full :class:`Toolchain`, which decides whether an engine loads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
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
"""Titles of runtimes; :func:`zoo.schema.runtimes.title_of` also accepts unknown ones."""


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
            UsageError: The architecture is unknown.
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
        """Reads ``rtx1.7``, ``ort1.32``, ``trt11.4`` or, short for the latter, ``11.4``.

        Raises:
            UsageError: The text is not a runtime line.
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
        """Reads the line of a record's label, whose runtime may be unknown to this version."""
        kind = text.rstrip("0123456789.")
        return cls(read_member(Runtime, kind), text[len(kind) :])

    @property
    def asked(self) -> str:
        """The value for ``TRT=``: ``11.4``, ``rtx1.7``."""
        return self.version if self.kind == Runtime.TRT else str(self)

    @property
    def title(self) -> str:
        """Its name for users: ``TensorRT 11.4``."""
        return f"{title_of(self.kind)} {self.version}"

    def __str__(self) -> str:
        return f"{self.kind}{self.version}"


@dataclass(frozen=True, order=True)
class Target:
    """Where an engine runs; ``str`` and :meth:`parse` are inverses.

    Attributes:
        arch: GPU architecture, or the CPU.
        line: The runtime line.
        precision: The engine's precision.
        mixed: Whether some of its operators run in a higher precision.
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
            TargetError: The farm does not support its precision.
        """
        label = Label.read(text)
        if str(label) != text or not label.precision or label.rest not in ("", MIXED):
            raise UsageError(
                f"'{text}' is not a target", hint="a target looks like sm86-rtx1.7-fp16"
            )
        arch, line = Arch.parse("+".join(label.archs)), RuntimeLine.parse(label.line)
        return cls(arch, line, parse_precision(label.precision), label.mixed)

    @property
    def label(self) -> Label:
        """Its label."""
        return label_of([self.arch], self.line, self.precision, mixed=self.mixed)

    def __str__(self) -> str:
        return str(self.label)


MIXED = "mixed"
"""The last part of a label if some operators run in a higher precision."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """The label of a target, or of several that one engine serves: ``sm80+sm86-rtx1.7-fp16``.

    :meth:`read` accepts labels in records of any version; :meth:`Target.parse` is strict. ``str``
    and :meth:`read` are inverses. Labels are split and joined here only.

    Attributes:
        archs: ``sm86``; several in a label of an engine for several architectures.
        line: ``rtx1.7``; empty if the label has no such part.
        precision: ``fp16``; empty if the label has no such part.
        rest: The remaining parts: ``mixed`` if some operators run in a higher precision, or parts
            that this version does not know.
    """

    archs: tuple[str, ...]
    line: str = ""
    precision: str = ""
    rest: str = ""

    @classmethod
    def read(cls, text: str) -> Label:
        """Reads a label, whose parts may be unknown to this version."""
        return _read_label(text)

    @classmethod
    def joined(cls, labels: Iterable[str]) -> Label:
        """Returns the label of an engine that serves several targets.

        Args:
            labels: Of the targets, which differ in their architectures.
        """
        read = [cls.read(label) for label in labels]
        archs = dict.fromkeys(arch for label in read for arch in label.archs)
        return replace(read[0], archs=tuple(archs))

    @property
    def arch(self) -> str:
        """The architecture; the first of several."""
        return self.archs[0]

    @property
    def runtime(self) -> RuntimeLine:
        """The runtime line, whose runtime may be unknown to this version."""
        return RuntimeLine.read(self.line)

    @property
    def mixed(self) -> bool:
        """Whether some operators run in a higher precision."""
        return self.rest == MIXED

    @property
    def place(self) -> str:
        """Architecture and runtime line, ``sm86-rtx1.7``."""
        return str(replace(self, precision="", rest=""))

    @property
    def cell(self) -> str:
        """The label without ``mixed``: engines with the same cell supersede each other."""
        return str(replace(self, rest="") if self.mixed else self)

    def __str__(self) -> str:
        parts = ("+".join(self.archs), self.line, self.precision, self.rest)
        return "-".join(filter(None, parts))


@lru_cache(maxsize=4096)
def _read_label(text: str) -> Label:
    archs, line, precision, rest = (*text.split("-", 3), "", "", "")[:4]
    return Label(archs=tuple(archs.split("+")), line=line, precision=precision, rest=rest)


def label_of(
    archs: Iterable[Arch | str],
    line: RuntimeLine,
    precision: Precision | Unknown,
    *,
    mixed: bool = False,
) -> Label:
    """Returns the label of an engine.

    Args:
        archs: Architectures that it serves.
        line: Its runtime line.
        precision: Its precision.
        mixed: Whether some of its operators run in a higher precision.
    """
    return Label(
        archs=tuple(map(str, archs)),
        line=str(line),
        precision=str(precision),
        rest=MIXED if mixed else "",
    )


@dataclass(frozen=True)
class EngineName:
    """A model and the label of one of its engines: ``resnet50 sm80+sm86-rtx1.7-fp16``.

    ``str`` and :meth:`read` are inverses.

    Attributes:
        model: Its id, which has no space.
        label: Of the engine; None if the whole model is meant.
    """

    model: str
    label: Label | None = None

    @classmethod
    def read(cls, text: str) -> EngineName:
        """Reads a name."""
        model, _, label = text.partition(" ")
        return cls(model, Label.read(label) if label else None)

    def __str__(self) -> str:
        return f"{self.model} {self.label}" if self.label else self.model


def arch_of(label: str) -> str:
    """Returns the architecture of a record's label."""
    return Label.read(label).arch


def place_of(label: str) -> str:
    """Returns architecture and runtime line of a record's label."""
    return Label.read(label).place


@lru_cache(maxsize=4096)
def cell_of(label: str) -> str:
    """Returns a record's label without ``-mixed``."""
    return Label.read(label).cell


def parse_precision(
    text: str, archs: Sequence[Arch] = (), line: RuntimeLine | None = None
) -> Precision:
    """Reads a precision.

    Args:
        text: The value of ``PRECISION=``.
        archs: The requested architectures; errors list what they support.
        line: The value of ``TRT=``, None if it is not given.

    Raises:
        UsageError: The precision is unknown.
        TargetError: The farm does not support the precision; says why, and what it supports.
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
    """The exact toolchain of an engine: everything that decides whether it loads.

    Attributes:
        kind: The runtime; unknown if a later version of this package wrote the record.
        version: Its full version, ``1.7.1.116``.
        cuda: CUDA major version of the runtime; None on the CPU.
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
        """The runtime line of this toolchain."""
        return RuntimeLine(self.kind, ".".join(self.version.split(".")[:2]))


def known_archs() -> list[str]:
    """Returns the names of all architectures in the table, ``cpu`` first."""
    return list(target_table().arch)


def known_lines() -> list[str]:
    """Returns the names of the runtime lines in the table."""
    return list(target_table().line)


def gpu_lines() -> list[RuntimeLine]:
    """Returns the lines that ``TRT=`` accepts."""
    lines = [RuntimeLine.parse(name) for name in known_lines()]
    return [line for line in lines if on_gpu(line.kind)]


def on_gpu(runtime: RuntimeKind) -> bool:
    """Whether a runtime is known to run on GPUs."""
    return not isinstance(runtime, Unknown) and RUNTIME_FACTS[runtime].gpu


def units_of(arch: Arch) -> tuple[str, ...]:
    """Returns the precisions that an architecture's hardware supports."""
    return target_table().arch[arch.name].units


def line_facts(line: RuntimeLine) -> LineFacts:
    """Returns the table's facts about a line.

    Raises:
        TargetError: The line is not in the table.
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
    """Returns the precisions that a line supports, by architecture; empty for an unknown line."""
    if str(line) not in known_lines():
        return {}
    cells = {name: line_facts(line).cell(name) for name in known_archs()}
    return {name: cell.precisions for name, cell in cells.items() if cell.precisions}


def lines_for(arch: Arch) -> list[RuntimeLine]:
    """Returns the lines that support an architecture."""
    lines = [RuntimeLine.parse(name) for name in known_lines()]
    return [line for line in lines if arch.name in served_archs(line)]


def alternatives(arch: Arch, line: RuntimeLine | None = None) -> str:
    """Describes the precisions and lines that support an architecture.

    Only those of ``line`` if that supports the architecture.
    """
    lines = lines_for(arch)
    if line in lines:
        lines = [line]
    taken = dict.fromkeys(name for one in lines for name in served_archs(one)[arch.name])
    return f"{arch} supports {', '.join(taken)} with {', '.join(one.asked for one in lines)}"


def not_served(arch: Arch, line: RuntimeLine) -> str | None:
    """Returns why a line does not support an architecture, None if it does."""
    if str(line) not in known_lines():
        return f"{line.title} is not in the targets table"
    reason = line_facts(line).cell(arch.name).why_not
    if reason is None:
        return None
    supported = ", ".join(served_archs(line))
    return f"{line} does not support {arch}: {reason} ({line} supports {supported})"


def refusal(target: Target, family: str = "") -> str | None:
    """Returns why a target is not supported, with the alternatives; None if it is.

    Args:
        target: The requested target.
        family: The model's family; empty to ask whether any model supports the target.
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
    """Describes which other lines, or else which other architectures, support a precision."""
    rest = [line for line in lines_for(arch) if line != but]
    lines = [line.asked for line in rest if precision in served_archs(line)[arch.name]]
    if lines:
        return f"{arch} supports {precision} with {', '.join(lines)}"
    tables = [served_archs(one) for one in gpu_lines()]
    archs = [n for n in known_archs() if any(precision in table.get(n, ()) for table in tables)]
    return f"{precision} is supported on {', '.join(archs)}"
