"""Targets: what heads are trained to predict, from a cache's labels, an array or a CSV file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.files import NO_LABEL
from zoo.caft.labels import class_of
from zoo.caft.task import Task
from zoo.util.errors import DatasetError
from zoo.util.names import counted

SEPARATOR = ";"


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The values to predict for each sample of a cache.

    Attributes:
        task: What is predicted.
        names: Names of the classes, numbers or labels: the outputs of a head.
        values: Of each sample: the number of its class, ``(samples,)`` int64; its numbers,
            ``(samples, outputs)`` float64; or 1 for each label that it has, ``(samples, outputs)``
            uint8.
        known: Whether each sample has a target; others are not used.
        notes: What was left out, as text.
    """

    task: Task
    names: tuple[str, ...]
    values: npt.NDArray[Any]
    known: npt.NDArray[np.bool_]
    notes: tuple[str, ...] = ()

    @property
    def samples(self) -> npt.NDArray[np.int64]:
        """Numbers of the samples that have a target."""
        return np.flatnonzero(self.known)

    @property
    def strata(self) -> npt.NDArray[np.int64]:
        """A group of each sample that has a target; each group is split on its own.

        The groups are the classes, or a sample's rarest label, so that rare labels are trained and
        held out; numbers are one group.
        """
        values = self.values[self.known]
        if self.task is Task.CLASSIFICATION:
            return np.asarray(values, np.int64)
        if self.task is Task.REGRESSION:
            return np.zeros(len(values), np.int64)
        rarest = np.full(len(values), -1, np.int64)
        for label in np.argsort(-values.sum(axis=0, dtype=np.int64), kind="stable"):
            rarest[values[:, label] == 1] = label
        return rarest


def assemble(
    entries: list[Any],
    task: Task,
    names: Sequence[str] | None,
    where: str,
    place: Callable[[int], str],
    notes: tuple[str, ...] = (),
) -> Targets:
    """Returns the targets of entries, one per sample.

    Args:
        entries: The labels; None for a sample without.
        task: What to predict.
        names: Names of the columns, if entries have several.
        where: What has the labels, for messages.
        place: Returns where the label of a sample is, for messages.
        notes: What was left out, as text.

    Raises:
        DatasetError: The labels don't fit the task.
    """
    convert = {
        Task.CLASSIFICATION: _classes,
        Task.REGRESSION: _numbers,
        Task.MULTI_LABEL: _labels,
    }[task]
    if task is Task.CLASSIFICATION:
        entries = [class_of(entry, of=place(n)) for n, entry in enumerate(entries)]
    known = np.array([entry is not None for entry in entries], np.bool_)
    if known.sum() < 2:
        raise DatasetError(
            f"{where}: training a head needs at least two images with a label; there "
            + ("is one" if known.any() else "are none"),
            hint="give labels with zoo train-head CACHE --labels FILE",
        )
    chosen, values = convert(entries, names, where, place)
    return Targets(task=task, names=chosen, values=values, known=known, notes=notes)


def _classes(
    entries: list[Any], names: Sequence[str] | None, where: str, place: Callable[[int], str]
) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    chosen = tuple(sorted({entry for entry in entries if entry is not None}, key=_in_order))
    if len(chosen) < 2:
        raise DatasetError(
            f"{where}: training a head needs at least two classes; there is only '{chosen[0]}'"
        )
    number = {name: place for place, name in enumerate(chosen)}
    return chosen, np.array([number.get(entry, NO_LABEL) for entry in entries], np.int64)


def _in_order(name: str) -> tuple[int, int, str]:
    """Sorts whole numbers by their value, before other names."""
    plain = name.isascii() and name.isdecimal() and len(name) < 19
    return (0, int(name), name) if plain else (1, 0, name)


def _numbers(
    entries: list[Any], names: Sequence[str] | None, where: str, place: Callable[[int], str]
) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    rows = [
        None if entry is None else [_number(value, place(n)) for value in _row(entry)]
        for n, entry in enumerate(entries)
    ]
    return _table(rows, names or (), "value", np.float64, place)


def _row(entry: Any) -> list[Any]:
    return list(entry) if isinstance(entry, (list, tuple, np.ndarray)) else [entry]


def _number(value: Any, place: str) -> float:
    """Returns a number.

    Raises:
        DatasetError: It is none, not finite, or too large for a head, which computes in float32.
    """
    try:
        number = math.nan if isinstance(value, bool) or "_" in str(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) < 1e30:
        raise DatasetError(
            f"{place}: '{_short(value)}' is not a number that a head can predict",
            hint="regression needs finite numbers below 1e30, with a decimal point; leave out "
            "images without one, or use --task classification for names",
        )
    return number


def _labels(
    entries: list[Any], names: Sequence[str] | None, where: str, place: Callable[[int], str]
) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    """Converts rows of 0 and 1, or names: in lists, or separated by semicolons."""
    given = [entry for entry in entries if entry is not None]
    if all(isinstance(entry, str) or _is_names(entry) for entry in given):
        chosen, values = _named(entries)
    else:
        rows = [
            None if entry is None else [flag_of(value, place(n)) for value in _row(entry)]
            for n, entry in enumerate(entries)
        ]
        chosen, values = _table(rows, names or (), "label", np.uint8, place)
    known = np.array([entry is not None for entry in entries], np.bool_)
    counts = values.sum(axis=0, dtype=np.int64)
    same = np.flatnonzero((counts == 0) | (counts == known.sum()))
    if not len(chosen) or len(same):
        which = "labels" if not chosen else f"'{chosen[same[0]]}'"
        number = "all" if chosen and counts[same[0]] else "none"
        raise DatasetError(
            f"{where}: {number} of the {known.sum():,} labelled images have {which}: there is "
            "nothing to learn",
            hint="leave out labels that all images have in common",
        )
    return chosen, values


def _is_names(entry: Any) -> bool:
    return isinstance(entry, (list, tuple, set, frozenset)) and all(
        isinstance(name, str) for name in entry
    )


def _named(entries: list[Any]) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    parts = [
        ()
        if entry is None
        else {
            name.strip() for name in (entry.split(SEPARATOR) if isinstance(entry, str) else entry)
        }
        - {""}
        for entry in entries
    ]
    chosen = tuple(sorted(set().union(*parts), key=_in_order))
    number = {name: place for place, name in enumerate(chosen)}
    values = np.zeros((len(entries), len(chosen)), np.uint8)
    for row, names in enumerate(parts):
        values[row, [number[name] for name in names]] = 1
    return chosen, values


def flag_of(value: Any, place: str) -> int:
    """Returns 0 or 1.

    Raises:
        DatasetError: The value is neither.
    """
    if str(value) not in _FLAGS:
        raise DatasetError(
            f"{place}: '{_short(value)}' is neither 0 nor 1",
            hint="multi-label needs columns of 0 and 1, or a column of names separated by ;",
        )
    return _FLAGS[str(value)]


_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "False": 0, "True": 1}


def _table(
    rows: list[list[Any] | None],
    names: Sequence[str],
    prefix: str,
    dtype: Any,
    place: Callable[[int], str],
) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    """Returns the names of columns, and rows as an array: zeros for a sample without."""
    width = len(names) or len(next(row for row in rows if row is not None))
    for number, row in enumerate(rows):
        if row is not None and (len(row) != width or not width):
            raise DatasetError(f"{place(number)} has {counted(len(row), 'number')}, not {width}")
    if not names:
        names = (prefix,) if width == 1 else tuple(f"{prefix}{number}" for number in range(width))
    values = np.zeros((len(rows), width), dtype)
    for number, row in enumerate(rows):
        if row is not None:
            values[number] = row
    return tuple(names), values


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:39]}…"
