"""Reads list files: a path per line, with its label after a comma or a tab."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from zoo.caft.file_read import FileRead
from zoo.caft.files import listed_key
from zoo.caft.labels import class_of
from zoo.caft.sample import Sample, is_image_suffix
from zoo.util.errors import DatasetError
from zoo.util.kinds import kind_of_file
from zoo.util.names import counted

_PATHS = frozenset(
    {"path", "file", "image", "filename", "file_name", "filepath", "file_path", "image_path"}
    | {"image_name", "image_file", "img", "img_path", "photo", "name", "id", "image_id"}
)
_LABELS = frozenset({"label", "labels", "class", "class_name", "category", "target", "y"})
"""Names of columns, in lower case."""

_DELIMITERS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar", " ": "a space"}
_LONGEST_LINE = 1 << 20
_QUOTES = 'a name with a quote in it is written "with ""two"" quotes"'


class ListSource:
    """A list file: a path per line, with its label after a comma (in ``.csv``) or a tab.

    A first line of column names, such as ``path,label``, is a heading, and lines that start with #
    are skipped.

    Args:
        path: The file; paths in it are relative to its folder, or absolute.
        labels: Whether to read the labels.

    Raises:
        DatasetError: The file does not exist.
    """

    def __init__(self, path: Path, *, labels: bool = True) -> None:
        if not os.path.isfile(path):
            raise DatasetError(
                f"{path}: no such list file",
                hint="check the path; each of its lines is a path, and a label if there are any",
            )
        self.path = path
        self._labels = labels
        self._delimiter = "," if path.suffix.lower() == ".csv" else "\t"

    @property
    def delimiter_words(self) -> str:
        """What separates a path from its label: ``a comma``."""
        return _DELIMITERS[self._delimiter]

    def __iter__(self) -> Iterator[Sample]:
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                yield from self._samples(
                    csv.reader(lines_of(file), delimiter=self._delimiter, strict=True)
                )
        except (UnicodeDecodeError, NotTextError) as error:
            raise DatasetError(
                f"{self.path} is {kind_of_file(self.path)}, not a list: UTF-8 text with a path, "
                "and a label if there are any, per line",
                hint="save the list as UTF-8",
            ) from error
        except csv.Error as error:
            too_long = "field limit" in str(error) or "characters" in str(error)
            hint = None if too_long else _QUOTES
            raise DatasetError(
                f"{self.path} can't be read as a list: {error}", hint=hint
            ) from error
        except OSError as error:
            raise DatasetError(f"can't read {self.path}: {error.strerror}") from error

    def _samples(self, rows: Iterator[list[str]]) -> Iterator[Sample]:
        times: Counter[str] = Counter()
        first = True
        for number, row in enumerate(rows, 1):
            if not row or not row[0].strip() or row[0].startswith("#"):
                continue
            if not (first and self._is_heading(row)):
                sample = self._sample(number, row)
                times[sample.name] += 1  # a photo may be listed twice, with two labels
                yield replace(sample, key=listed_key(sample.name, times[sample.name]))
            first = False

    def _is_heading(self, row: list[str]) -> bool:
        """Whether a line has the names of columns rather than a path.

        Raises:
            DatasetError: The path is not in the first column.
        """
        columns = [value.strip().lower() for value in row]
        if os.path.exists(self.path.parent / row[0].strip()):
            return False
        if columns[0] not in _PATHS and _PATHS.intersection(columns[1:]):
            raise DatasetError(
                f"{self.path} has the columns {', '.join(columns)}: the first is not a path",
                hint="the columns of a list are path and label, in this order",
            )
        return columns[0] in _PATHS or any(column in _LABELS for column in columns[1:])

    def _sample(self, number: int, row: list[str]) -> Sample:
        line, name = f"{self.path}: line {number}", row[0].strip()
        if any("\n" in value for value in row):
            raise DatasetError(
                f"{self.path}: entry {number} goes over several lines: a quote is not closed",
                hint=_QUOTES,
            )
        if len(row) > 2 and self._labels:
            raise DatasetError(
                f"{line} has {counted(len(row), 'field')}, not just a path and a label",
                hint='quote a name that contains the delimiter: "a, b.jpg",cat',
            )
        path = self.path.parent / name
        if len(row) == 1:
            self._check_delimiter(line, name)
        label = class_of(row[1], of=line) if len(row) == 2 and self._labels else None
        return Sample(name=name, label=label, read=FileRead(path), rereadable=True)

    def _check_delimiter(self, line: str, name: str) -> None:
        """Checks that a line is only a path, rather than path and label with another delimiter.

        Raises:
            DatasetError: There is no such file, but the start of the line is a path.
        """
        for delimiter, word in _DELIMITERS.items():
            start, _, rest = name.rpartition(delimiter)
            if start and _like_path(start.strip()) and not _like_path(rest):
                if os.path.exists(self.path.parent / name):
                    return
                raise DatasetError(
                    f"{line}: there is no file '{_short(name)}'; if {word} separates its label, "
                    f"{self.path.suffix} files need {self.delimiter_words}",
                    hint="only .csv files separate the label by a comma; others need a tab",
                )


class NotTextError(csv.Error):
    """The first line has a null character, which no text has."""


def lines_of(file: TextIO) -> Iterator[str]:
    """Yields the lines of a table, none of which is read further than a line may be long.

    Raises:
        NotTextError: The first line has a null character; one further down is a bad name.
        csv.Error: A line is longer than that.
    """
    is_first = True
    while line := file.readline(_LONGEST_LINE):
        if is_first and "\0" in line:
            raise NotTextError
        is_first = False
        if len(line) == _LONGEST_LINE:
            raise csv.Error(f"a line has more than {_LONGEST_LINE:,} characters")
        yield line


def _like_path(text: str) -> bool:
    return is_image_suffix(os.path.splitext(text)[1].lower())


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:79]}…"
