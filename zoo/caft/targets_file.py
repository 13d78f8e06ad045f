"""Reads targets: from a cache, an array, or a CSV file that is keyed by sample name.

The first line of a file names the columns: the sample's name, then a column of class names, one
or several columns of numbers, or of 0 and 1, or a column of names separated by semicolons. Cells
that are all empty are no label. A file that is not called ``.csv`` is separated by tabs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.caft.files import NO_LABEL
from zoo.caft.lists import NotTextError, lines_of
from zoo.caft.notes import Notes
from zoo.caft.targets import Targets, assemble, flag_of
from zoo.caft.task import Task
from zoo.util.errors import DatasetError
from zoo.util.kinds import kind_of_file
from zoo.util.names import counted

_WANTED = "UTF-8 text with an image's name and its labels per line"
_SAVE = "save the table as CSV (UTF-8) and give that file"
_EXAMPLE = {
    Task.CLASSIFICATION: "name,class",
    Task.REGRESSION: "name,price",
    Task.MULTI_LABEL: "name,labels",
}


def targets_of(
    cache: FeatureCache,
    task: Task = Task.CLASSIFICATION,
    labels: str | Path | npt.ArrayLike | Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
) -> Targets:
    """Returns the targets of a cache's samples.

    Args:
        cache: The cache.
        task: What to predict.
        labels: A CSV file (:func:`read_targets`), or a label for each sample in the
            cache's order, where None is no label: names or integers for classification, numbers
            or rows of them for regression, rows of 0 and 1 or lists of names for multi-label. If
            None, the cache's own labels: as numbers for regression, split at ``;`` for multi-label.
        names: Names of an array's columns.

    Raises:
        DatasetError: The labels don't fit the cache or the task.
        CacheError: The task is classification and fewer than two classes have a label.
    """
    if isinstance(labels, (str, Path)):
        return read_targets(Path(labels), cache, task)
    if labels is None and task is Task.CLASSIFICATION:
        cache.labelled()
        known = np.asarray(cache.labels != NO_LABEL)
        return Targets(task=task, names=cache.label_names, values=cache.labels, known=known)
    where = f"{cache.folder}" if labels is None else "the labels"
    entries = _own(cache) if labels is None else _entries(labels)
    if len(entries) != cache.card.samples:
        raise DatasetError(
            f"{counted(len(entries), 'label')} for {cache.folder}, which has "
            f"{counted(cache.card.samples, 'image')}",
            hint="give a label for each image, not for each of its views, in the order of "
            "cache.names(); None for an image without a label",
        )
    return assemble(entries, task, names, where, lambda number: f"image {number}")


def _own(cache: FeatureCache) -> list[Any]:
    """Returns the name of each sample's class, None without one."""
    by_number = [*cache.label_names, None]  # -1 is the last
    return [by_number[number] for number in cache.labels.tolist()]


def _entries(labels: Any) -> list[Any]:
    """Returns labels as a list of Python objects."""
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu()
    if hasattr(labels, "tolist"):
        array = np.asarray(labels)
        if array.ndim not in (1, 2):
            raise DatasetError(f"labels are (images,) or (images, columns), not {array.shape}")
        labels = array.tolist()
    return list(labels)


def read_targets(path: Path, cache: FeatureCache, task: Task) -> Targets:
    """Reads the targets of a cache's samples.

    Args:
        path: The file.
        cache: The cache, whose sample names are those of the file.
        task: What to predict.

    Raises:
        DatasetError: The file can't be read, or doesn't fit the cache or the task.
    """
    names = list(cache.names())
    wanted = set(names)
    lines = _lines(path)
    header = next(lines, (0, []))[1]
    _check_header(path, header, task, wanted)
    cells: dict[str, tuple[int, list[str]]] = {}
    notes, kind = Notes(), "labels of images that are not in the cache"
    for number, (name, *values) in lines:
        if len(values) != len(header) - 1:
            raise DatasetError(
                f"{path}: line {number} has {counted(len(values) + 1, 'field')}, but the "
                f"first line has {len(header)}",
                hint='quote what contains a comma: "a, b.jpg",3',
            )
        before = cells.setdefault(name, (number, values))
        if before[1] != values:
            raise DatasetError(
                f"{path}: lines {before[0]} and {number} have different labels for '{name}'"
            )
        if name not in wanted and before[0] == number:
            notes.add(kind, name)
    if not wanted & cells.keys():
        some = f", such as '{next(iter(cells))}'" if cells else ""
        raise DatasetError(
            f"{path} has no label of an image in {cache.folder}: it has {len(cells):,} names"
            f"{some}; the cache has names such as '{names[0]}'",
            hint="name images as the cache does: FeatureCache(folder).names() lists them",
        )
    entries = [_entry(path, *cells.get(name, (0, [])), len(header) == 2, task) for name in names]
    line_of = [cells.get(name, (0, []))[0] for name in names]
    return assemble(
        entries, task, header[1:], str(path), lambda n: f"{path}: line {line_of[n]}", notes.lines
    )


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields line numbers and fields, without surrounding spaces; skips empty lines."""
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    if path.exists() and not path.is_file():
        raise DatasetError(f"{path} is {kind_of_file(path)}, not labels: {_WANTED}", hint=_SAVE)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(lines_of(file), delimiter=delimiter, strict=True)
            for row in reader:
                if row and row[0].strip() and not row[0].startswith("#"):
                    yield reader.line_num, [field.strip() for field in row]
    except OSError as error:
        raise DatasetError(f"can't read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, NotTextError) as error:
        raise DatasetError(
            f"{path} is {kind_of_file(path)}, not labels: {_WANTED}", hint=_SAVE
        ) from error
    except csv.Error as error:
        raise DatasetError(f"{path} is not a CSV file: {error}", hint=_SAVE) from error


def _check_header(path: Path, header: list[str], task: Task, names: set[str]) -> None:
    hint = f"the first line names the columns, such as {_EXAMPLE[task]}"
    if not header:
        raise DatasetError(f"{path} is empty", hint=hint)
    if header[0] in names:
        raise DatasetError(
            f"{path}: the first line describes an image, '{header[0]}'",
            hint=f"add a line before it that names the columns: {_EXAMPLE[task]}",
        )
    columns = header[1:]
    if not columns or not all(columns) or len(set(columns)) < len(columns):
        raise DatasetError(
            f"{path}: the first line has no label column, a column without a name, or two columns "
            "with the same name",
            hint=f"{hint}; only .csv files separate columns by commas, others by tabs",
        )
    if task is Task.CLASSIFICATION and len(columns) > 1:
        raise DatasetError(
            f"{path} has {len(columns)} columns of labels; an image has one class",
            hint="use --task multi-label or --task regression, or keep one column",
        )


def _entry(path: Path, number: int, values: list[str], alone: bool, task: Task) -> Any:
    """Returns the label in a line's cells, None if they are empty."""
    if not any(values):
        return None
    if not all(values):
        raise DatasetError(
            f"{path}: line {number} has empty cells",
            hint="fill them in, or leave all of the line's cells empty",
        )
    if task is Task.REGRESSION:
        return values
    if task is Task.MULTI_LABEL and not (alone and values[0] not in ("0", "1")):
        return [flag_of(value, f"{path}: line {number}") for value in values]
    return values[0]
