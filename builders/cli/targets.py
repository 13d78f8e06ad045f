"""Formats the targets table, ``zoo/schema/targets.toml``, as text or JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import TypedDict

from zoo.schema.targets import Arch, Precision, RuntimeLine, known_archs, known_lines, line_facts
from zoo.schema.targets_table import target_table

_WIDTH = 100


def to_text(*, sources: bool = False) -> str:
    """Returns the table as text: precisions, requirements, and why a pair is not supported.

    Args:
        sources: Whether to add the source of each cell and fact.
    """
    notes: dict[str, int] = {}
    parts = [
        "Precisions that the farm builds, by GPU and TRT=:",
        _matrix(notes),
        "\n".join(_wrapped(f"[{number}]", text) for text, number in notes.items()),
        "Requirements of a line (driver: the oldest supported, for each CUDA major version):",
        _lines(),
        "How to install a line:",
        _installs(),
        "Data types of a GPU's arithmetic units "
        f"({' and '.join(target_table().precision)} are planned, and refused until they work):",
        _units(),
    ]
    if sources:
        parts += ["Sources:", _sources()]
    return "\n\n".join(parts)


def to_json() -> str:
    """Returns the whole table; ``cells`` has every pair of a GPU and a line, supported or not."""
    table = target_table()
    cells = [
        {"gpu": arch.name, "line": str(line), **_cell(arch, line)}
        for line in map(RuntimeLine.parse, known_lines())
        for arch in map(Arch, known_archs())
    ]
    lines = {
        name: {"trt": RuntimeLine.parse(name).asked, **facts.model_dump(exclude={"cells"})}
        for name, facts in table.line.items()
    }
    plain = table.model_dump(exclude={"line"})
    whole = {"gpus": plain["arch"], "no_recipe": plain["precision"], "lines": lines, "cells": cells}
    return json.dumps(whole, indent=1)


class CellJson(TypedDict):
    """A pair of a GPU and a runtime line, in the JSON of the table.

    Attributes:
        served: Whether engines are built for it.
        precisions: The precisions of those engines.
        cuda: Major versions of CUDA.
        driver: Major version of CUDA to the lowest driver version.
        container: The container with the runtime; None if it is not served.
        why_not: Why it is not served; None if it is.
        note: A remark, or None.
        source: Where that is documented, or None.
    """

    served: bool
    precisions: list[Precision]
    cuda: list[int]
    driver: dict[int, int]
    container: str | None
    why_not: str | None
    note: str | None
    source: str | None


def _cell(arch: Arch, line: RuntimeLine) -> CellJson:
    cell = line_facts(line).cell(arch.name)
    served = bool(cell.precisions)
    return {
        "served": served,
        "precisions": list(cell.precisions),
        "cuda": list(cell.driver) if served else [],
        "driver": cell.driver if served else {},
        "container": cell.container if served else None,
        "why_not": cell.why_not,
        "note": cell.note,
        "source": cell.source,
    }


def _matrix(notes: dict[str, int]) -> str:
    """Formats the GPU by line matrix and numbers its footnotes in ``notes``.

    Lines with equal cells share a column.
    """
    columns: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for line in map(RuntimeLine.parse, known_lines()):
        cells = [line_facts(line).cell(name) for name in known_archs()]
        column = tuple(
            (" ".join(cell.precisions) or "-", *filter(None, (cell.why_not, cell.note)))
            for cell in cells
        )
        columns.setdefault(column, []).append(line.asked)
    rows = [["GPU", *(" ".join(lines) for lines in columns.values())]]
    for number, name in enumerate(known_archs()):
        row = [name]
        for words, *texts in (column[number] for column in columns):
            marks = [f"[{notes.setdefault(text, len(notes) + 1)}]" for text in texts]
            row.append(" ".join([words, *marks]))
        rows.append(row)
    return _aligned(rows)


def _lines() -> str:
    rows = [["TRT=", "runtime", "CUDA", "driver", "ONNX", "container"]]
    for name, facts in target_table().line.items():
        line = RuntimeLine.parse(name)
        cuda = ", ".join(map(str, facts.driver)) or "-"
        driver = ", ".join(map(str, facts.driver.values())) or "-"
        rows.append([line.asked, line.title, cuda, driver, facts.dialect, facts.container])
    return _aligned(rows)


def _installs() -> str:
    rows = []
    for name, facts in target_table().line.items():
        image = facts.container_note and f"container: {facts.container_note}"
        text = "; ".join(filter(None, (facts.install, facts.note, image)))
        rows.append(_wrapped(RuntimeLine.parse(name).asked, text))
    return "\n".join(rows)


def _units() -> str:
    rows = [["GPU", "", "units"]]
    for name, facts in target_table().arch.items():
        rows.append([name, facts.name, " ".join(facts.units)])
    return _aligned(rows)


def _sources() -> str:
    rows = []
    for name, facts in target_table().line.items():
        label = RuntimeLine.parse(name).asked
        rows += [f"{label} on {' '.join(cell.archs)}: {cell.source}" for cell in facts.cells]
        rows.append(f"{label} reads {facts.dialect}: {facts.dialect_source}")
        if facts.driver_source:
            rows.append(f"{label} driver: {facts.driver_source}")
    rows += [f"units of {name}: {facts.source}" for name, facts in target_table().arch.items()]
    recipes = target_table().precision.items()
    rows += [f"recipe for {name}: {facts.source}" for name, facts in recipes]
    return "\n".join(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_row(row, widths) for row in rows)


def _row(row: Iterable[str], widths: Iterable[int]) -> str:
    words = (f"{word:<{width}}" for word, width in zip(row, widths, strict=True))
    return "  ".join(words).rstrip()


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=f"{label:<9}",
        subsequent_indent=" " * 9,
        break_long_words=False,
        break_on_hyphens=False,
    )
