"""The files of a feature cache: their names, the lines of its log, and its lock."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt
from typing_extensions import NotRequired

from zoo.caft.sample import Sample
from zoo.util.digest import sha256_bytes
from zoo.util.errors import CacheError
from zoo.util.files import whole
from zoo.util.loading import parse_json
from zoo.util.locks import NO_LOCKS, is_not_mine

if TYPE_CHECKING:
    from zoo.caft.arrange import DraftLine

FEATURES, LABELS, HASHES, LOG = "features.npy", "labels.npy", "hashes.npy", "samples.jsonl"
SUMS = "sums.npy"
STORED = {"fp32": np.float32, "fp16": np.float16}
NO_LABEL = -1
LISTS = frozenset({".txt", ".csv", ".tsv", ".lst"})
"""Suffixes of list files."""
LOCK = ".lock"
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_WITH_GIL = 4096
"""Bytes that zlib sums without giving up the GIL. To get it back takes longer than the sum, where
other threads have photos to prepare."""


@dataclass(kw_only=True)
class Log:
    """The complete lines of a log.

    Attributes:
        keys: Key of each line.
        rows: Sample number of each line in the arrays, -1 for a skipped image.
        labels: Number of each line's class, -1 if there is none.
        classes: Number of each class, in order of first appearance.
        samples: Number of lines with a row.
        unlabelled: Of those, the ones without a label.
        end: Offset of the end of the last complete line.
        digests: Digests of all samples, concatenated; cleared after use.
    """

    keys: array[int] = field(default_factory=lambda: array("Q"))
    rows: array[int] = field(default_factory=lambda: array("q"))
    labels: array[int] = field(default_factory=lambda: array("q"))
    classes: dict[str, int] = field(default_factory=dict)
    samples: int = 0
    unlabelled: int = 0
    end: int = 0
    digests: bytearray = field(default_factory=bytearray)

    @property
    def bad(self) -> int:
        """Number of lines of skipped images."""
        return len(self.keys) - self.samples

    def add(self, key: int, label: str | None, bad: bool) -> int:
        """Adds a line; returns the number of its class."""
        number = NO_LABEL
        if label is not None and not bad:
            number = self.classes.setdefault(label, len(self.classes))
        self.keys.append(key)
        self.rows.append(-1 if bad else self.samples)
        self.labels.append(number)
        self.samples += not bad
        self.unlabelled += not bad and label is None
        return number


def read_log(path: Path, *, of_list: bool = False) -> Log:
    """Reads a log, ignoring an incomplete last line.

    Args:
        path: The log; may not exist.
        of_list: Whether to recompute the keys of a list file's samples: earlier versions used line
            numbers.

    Raises:
        CacheError: A complete line is damaged.
    """
    log = Log()
    if not path.exists():
        return log
    occurrences: Counter[str] = Counter()
    for line, end in whole_lines(path):
        key = line["key"]
        if of_list:
            occurrences[line["name"]] += 1
            key = _key(listed_key(line["name"], occurrences[line["name"]]))
        log.add(int(key, 16), line.get("label"), "error" in line)
        log.digests += b"" if "error" in line else bytes.fromhex(line["sha256"])
        log.end = end
    return log


class LogLine(TypedDict):
    """A line of ``samples.jsonl``: a sample that was processed or skipped.

    Attributes:
        key: :func:`key_of` of the sample, 64 bits in hexadecimal.
        name: Name of the sample.
        label: Name of its class; absent if it has none.
        sha256: Digest of its image, in hexadecimal; absent if it was skipped.
        error: Reason for skipping it; absent if it was processed.
    """

    key: str
    name: str
    label: NotRequired[str]
    sha256: NotRequired[str]
    error: NotRequired[str]


def whole_lines(path: Path) -> Iterator[tuple[LogLine, int]]:
    """Yields each complete line of ``samples.jsonl`` and the offset at which it ends.

    Raises:
        CacheError: A complete line is damaged.
    """
    end = 0
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if not text.endswith(b"\n"):
                return  # incomplete: the pass was killed
            end += len(text)
            try:
                line = parse_json(text)
                _check_line(line)
            except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
                raise CacheError(
                    f"{path}: line {number} is damaged",
                    hint="extract the features again into another folder",
                ) from error
            yield line, end


def _check_line(line: Any) -> None:
    """Raises an error unless a line has a key, a name, and a digest or the reason for skipping."""
    int(line["key"], 16).to_bytes(8, "big")
    result = line["error"] if "error" in line else bytes.fromhex(line["sha256"])
    texts = (line["name"], line.get("label") or "", result if "error" in line else "")
    if not all(isinstance(text, str) for text in texts) or (
        "error" not in line and len(result) != 32
    ):
        raise ValueError("a field has the wrong type")


_EXPONENT = 0x7C00
"""Bits of a float16 that are all set in infinities and NaN only."""


def all_finite(features: npt.NDArray[Any]) -> bool:
    """Whether no feature is infinite or NaN.

    NumPy takes twenty times as long for the float16 of a photo as their bits do.
    """
    if features.dtype != np.float16:
        return bool(np.isfinite(features).all())
    return not ((features.view(np.uint16) & _EXPONENT) == _EXPONENT).any()


def sums_of(rows: npt.NDArray[Any], samples: int) -> npt.NDArray[np.uint32]:
    """Returns the CRC-32 of each sample's features, over all its views."""
    data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
    size = len(data) // max(1, samples)
    sums = np.empty(samples, np.uint32)
    for number in range(samples):
        sum_, end = 0, (number + 1) * size
        for start in range(number * size, end, _WITH_GIL):
            sum_ = zlib.crc32(data[start : min(start + _WITH_GIL, end)], sum_)
        sums[number] = sum_
    return sums


def key_of(sample: Sample) -> str:
    """Returns a sample's key, unique in its data set: 64 bits in hexadecimal."""
    return _key(sample.key or sample.name)


def listed_key(name: str, occurrence: int) -> str:
    """Returns the key of the n-th line of a list file that has this name."""
    return f"{occurrence}:{name}"


def _key(text: str) -> str:
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no file's name, but a data set's own may be any string
        data = text.encode("utf-8", "surrogatepass")
    return sha256_bytes(data)[:16]


def line_of(sample: Sample, label: str | None, sha256: str, error: str | None = None) -> bytes:
    """Returns a sample's line in the log."""
    quoted = _ENCODER.encode  # of each text: that of a dictionary takes five times as long
    text = f'{{"key": "{key_of(sample)}", "name": {quoted(in_utf8(sample.name))}'
    if label is not None:
        text += f', "label": {quoted(label)}'
    result = f'"sha256": "{sha256}"' if error is None else f'"error": {quoted(error)}'
    return f"{text}, {result}}}\n".encode("utf-8", "replace")


def encode(line: LogLine | DraftLine) -> bytes:
    """Serialises a line of a log."""
    return _ENCODER.encode(line).encode("utf-8", "replace") + b"\n"


def in_utf8(name: str) -> str:
    """Returns a file's name with bytes that are not valid UTF-8 replaced, as caches have them.

    What must stay distinct is :func:`zoo.util.names.escaped` instead.
    """
    return name if name.isascii() else name.encode("utf-8", "replace").decode()


def lock(folder: Path) -> int | None:
    """Locks a cache.

    Returns:
        File descriptor of the lock, None if this user may not write to the folder.

    Raises:
        CacheError: Another process is writing the cache.
    """
    import fcntl

    path = folder / LOCK
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if not is_not_mine(error):
            raise CacheError(f"can't lock {path}: {error.strerror}") from error
        if not os.access(folder, os.W_OK) or not path.exists():
            return None
        file = os.open(path, os.O_RDONLY)  # another user's file in a shared folder
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:  # the writer detects another by the length of the log
            return file
        os.close(file)
        raise _is_locked(folder) from error
    if not path.exists():  # whoever held it has just deleted the cache, which was empty
        os.close(file)
        raise _is_locked(folder)
    return file


def _is_locked(folder: Path) -> CacheError:
    return CacheError(
        f"another zoo features process is writing {folder}",
        hint="wait until it finishes, or stop it",
    )


def own(path: Path) -> Path:
    """Makes a file writable for this user, by copying another user's file in a shared folder."""
    try:
        os.close(os.open(path, os.O_RDWR))
    except FileNotFoundError:
        pass
    except OSError as error:
        if not is_not_mine(error):
            raise
        with whole(path) as partial:
            shutil.copyfile(path, partial)
    return path
