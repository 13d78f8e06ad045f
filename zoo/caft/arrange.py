"""Rearranges a cache's rows in the order of its data set, atomically.

New rows are appended during a pass. If images were inserted, moved, relabelled or removed, a draft
lists the lines of the new log. At the end of the pass :func:`arrange` writes the new files to
``.next``, renames that folder to ``.ready``, and moves the files into place. :func:`settle`
finishes the moves if the process was killed between them.
"""

from __future__ import annotations

import os
import shutil
from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from zoo.caft.files import FEATURES, HASHES, LABELS, LOG, SUMS, Log, LogLine, encode, whole_lines
from zoo.caft.growing import GrowingArray, mapped
from zoo.util.loading import parse_json

NEXT, READY = ".next", ".ready"
_DRAFT = "draft.jsonl"
_ROWS_BYTES = 64 << 20  # bytes of rows copied at a time


class DraftLine(TypedDict):
    """A sample whose features are in the cache.

    Attributes:
        row: Its row in the cache.
        key: :func:`zoo.caft.files.key_of` the sample; 64 bits in hexadecimal.
        name: Name of the sample.
        label: Name of its class, None if it has none.
    """

    row: int
    key: str
    name: str
    label: str | None


class Draft:
    """The lines of a cache's new log, in the order of the data set.

    Args:
        folder: The cache's folder.
        lines: Number of lines at the start of the log that stay unchanged.
    """

    def __init__(self, folder: Path, lines: int) -> None:
        self.lines = lines
        self.folder = folder / NEXT
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self._file = (self.folder / _DRAFT).open("wb")

    def keep(self, row: int, key: str, name: str, label: str | None) -> None:
        """Adds a sample whose features are in a row of the cache."""
        line: DraftLine = {"row": row, "key": key, "name": name, "label": label}
        self._file.write(encode(line))

    def expect(self) -> None:
        """Adds a placeholder for the next sample that this pass appends to the log."""
        self._file.write(b"{}\n")

    def drop(self) -> None:
        """Closes and deletes the draft."""
        self._file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __iter__(self) -> Iterator[DraftLine | None]:
        """Yields the lines, None for a sample of this pass; closes the draft to additions."""
        self._file.close()
        with (self.folder / _DRAFT).open("rb") as file:
            for text in file:
                yield parse_json(text) or None


def arrange(folder: Path, draft: Draft, old: Log, views: int) -> Log:
    """Rewrites a cache's files to match a draft.

    Args:
        folder: The cache's folder; its files are flushed and closed.
        draft: The lines of the new log.
        old: The log before this pass.
        views: Rows per sample.

    Returns:
        The new log.
    """
    order = array("q")
    new = _write_log(folder, draft, old, order)
    labels = GrowingArray(draft.folder / LABELS, np.int64, (), 0)
    rows = np.frombuffer(new.rows, np.int64) if new.rows else np.empty(0, np.int64)
    numbers = np.frombuffer(new.labels, np.int64) if new.labels else np.empty(0, np.int64)
    labels.append(numbers[rows >= 0])
    labels.close(sync=True)
    samples = np.frombuffer(order, np.int64) if order else np.empty(0, np.int64)
    if not np.array_equal(samples, np.arange(len(samples))):
        _copy(folder / HASHES, draft.folder / HASHES, samples, 1)
        _copy(folder / SUMS, draft.folder / SUMS, samples, 1)
        _copy(folder / FEATURES, draft.folder / FEATURES, samples, views)
    (draft.folder / _DRAFT).unlink()
    _sync(draft.folder)
    draft.folder.rename(folder / READY)
    settle(folder)
    return new


def settle(folder: Path) -> None:
    """Completes, or discards, the rearrangement of a process that was killed."""
    ready = folder / READY
    if ready.is_dir():
        _sync(folder)
        for path in sorted(ready.iterdir()):
            path.replace(folder / path.name)
        ready.rmdir()
        _sync(folder)
    shutil.rmtree(folder / NEXT, ignore_errors=True)


def _write_log(folder: Path, draft: Draft, old: Log, order: array[int]) -> Log:
    """Writes the new log; appends the current row of each of its samples to ``order``."""
    new = Log()
    lines = (line for line, _ in whole_lines(folder / LOG))
    unchanged = islice(lines, draft.lines)
    hashes = mapped(folder / HASHES, np.uint8, (32,), old.samples)
    with (draft.folder / LOG).open("wb") as file:

        def write(line: LogLine, row: int) -> None:
            bad = "error" in line
            new.add(int(line["key"], 16), line.get("label"), bad)
            if not bad:
                order.append(row)
            file.write(encode(line))

        for number, line in enumerate(unchanged):
            write(line, old.rows[number])
        appended = islice(lines, len(old.keys) - draft.lines, None)
        row = old.samples
        for entry in draft:
            if entry is None:
                line = next(appended)
                write(line, row)
                row += "error" not in line
                continue
            kept: LogLine = {"key": entry["key"], "name": entry["name"]}
            if entry["label"] is not None:
                kept["label"] = entry["label"]
            kept["sha256"] = hashes[entry["row"]].tobytes().hex()
            write(kept, entry["row"])
        file.flush()
        os.fsync(file.fileno())
    return new


def _copy(source: Path, target: Path, samples: npt.NDArray[np.int64], views: int) -> None:
    """Copies the rows of samples to a new array, in the given order."""
    stored = np.load(source, mmap_mode="r", allow_pickle=False)
    copied = GrowingArray(target, stored.dtype, stored.shape[1:], 0)
    step = max(1, _ROWS_BYTES // max(1, views * stored[:1].nbytes))
    for start in range(0, len(samples), step):
        rows = samples[start : start + step, None] * views + np.arange(views)
        copied.append(stored[rows.reshape(-1)])
    copied.close(sync=True)


def _sync(folder: Path) -> None:
    """Flushes a folder's entries to disk."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
