"""Compares a batch's measured numbers with a tolerance; loads no NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from zoo.schema.floors import LIMITS, Tolerance
from zoo.schema.measurements import BatchNumbers, EdgeNumbers
from zoo.util.names import counted

Number = TypeVar("Number", int, float, bool)


def find_misses(numbers: BatchNumbers, tolerance: Tolerance) -> list[str]:
    """Describes each limit of the tolerance that a batch misses; empty when it meets them all.

    Raises:
        KeyError: A number that decides is missing.
    """
    where = f"batch {_stated(numbers.batch, 'batch')}"
    if not _stated(numbers.finite, "finite"):
        if numbers.shape is not None:
            return [f"{where}: features of shape {numbers.shape}"]
        rows = _stated(numbers.rows_not_finite, "rows_not_finite")
        return [f"{where}: NaN or infinity in {counted(rows, 'row')}"]
    misses = []
    for name, limit in LIMITS.items():
        number: float = _stated(getattr(numbers, limit.measured), limit.measured)
        allowed: float = getattr(tolerance, name)
        if not limit.met_by(number, allowed, numbers.batch):
            row = _stated(numbers.worst_row, "worst_row")
            misses.append(f"{where}: {limit.miss.format(number=number, limit=allowed, row=row)}")
    if lost := _stated(numbers.lost_rows, "lost_rows"):
        verb = "is" if lost == 1 else "are"
        misses.append(f"{where}: {counted(lost, 'row')} {verb} nearest to another photo's")
    misses += (f"{where}: {miss}" for miss in edge_misses(numbers.edges))
    return misses


def edge_misses(edges: Mapping[str, EdgeNumbers]) -> list[str]:
    """Describes which edge pictures give NaN or infinity; empty if none does.

    Their distance from PyTorch's features is recorded and not judged: on noise and on flat pictures
    a network may amplify rounding without end, with seeded weights by hundreds of percent.
    """
    return [
        f"the picture '{name}' gives NaN or infinity"
        for name, numbers in edges.items()
        if not _stated(numbers.finite, "finite")
    ]


def _stated(value: Number | None, name: str) -> Number:
    if value is None:
        raise KeyError(name)
    return value
