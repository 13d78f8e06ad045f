"""Writes a feature cache so that being killed at any moment loses no finished batch.

A cache is a folder::

    card.json        engine, preprocessing, names of the classes
    features.npy     (samples * views, feature_dim), float32 or float16
    labels.npy       (samples,), int64: number of the class, -1 if there is none
    hashes.npy       (samples, 32), uint8: SHA-256 of each image
    samples.jsonl    a line per image, skipped ones too: name, label, digest or error

A batch goes to the arrays first and to ``samples.jsonl`` last, in one write. The complete lines of
that log say what is done; rows of the arrays beyond them are left over from a kill and are cut off.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from typing_extensions import NotRequired

from zoo.caft.card import Card, Identity, check_same, read_card, write_card
from zoo.caft.decode import Decoded
from zoo.caft.growing import GrowingArray
from zoo.caft.sample import Sample
from zoo.caft.sources import in_utf8
from zoo.util.digest import sha256_bytes
from zoo.util.errors import CacheError
from zoo.util.files import whole

FEATURES, LABELS, HASHES, LOG = "features.npy", "labels.npy", "hashes.npy", "samples.jsonl"
STORED = {"fp32": np.float32, "fp16": np.float16}
NO_LABEL = -1


class LogLine(TypedDict):
    """A line of ``samples.jsonl``: a sample that was processed, or skipped.

    Attributes:
        key: :func:`key_of` it, 64 bits in hexadecimal.
        name: Its name.
        label: The name of its class; absent if it has none.
        sha256: Digest of its image, in hexadecimal; absent if it was skipped.
        error: Why it was skipped; absent if it was not.
    """

    key: str
    name: str
    label: NotRequired[str]
    sha256: NotRequired[str]
    error: NotRequired[str]


class CacheWriter:
    """Appends to a feature cache; only one process at a time can.

    Args:
        folder: The cache's folder; created if missing.
        identity: The engine and the settings that make the rows.
        source: Name of the data set; names of samples are unique within it.
        moved: Whether to accept another name than the cache's, for a data set that was moved.

    Raises:
        CacheError: The folder holds features of another engine or data set or other files, or
            another process is writing it.
    """

    def __init__(
        self, folder: Path, identity: Identity, source: str = "", *, moved: bool = False
    ) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise CacheError(f"{folder} is a file; a feature cache is a folder")
        card = read_card(folder) if folder.is_dir() else None
        if card is not None:
            check_same(folder, card.identity, identity)
            if card.source != source and not moved:
                raise CacheError(
                    f"{folder} has features of {card.source}, not of {source}",
                    hint="use another folder, or --moved if it is the same data set elsewhere",
                )
            card = card.model_copy(update={"source": source})
        elif folder.is_dir() and not all(_is_leftover(path) for path in folder.iterdir()):
            raise CacheError(
                f"{folder} contains other files and is not a feature cache",
                hint="choose a new or empty folder with -o",
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        self._last = _last_written(folder)
        self.card = card or Card(identity=identity, source=source)
        if card is None:
            write_card(folder, self.card)
        self._views = identity.augmentation.views
        if self.card.complete:
            _forget_bad(folder / LOG)
        self._log = os.open(folder / LOG, os.O_RDWR | os.O_CREAT, 0o666)
        self._classes: dict[str, int] = {}
        self.samples, self.bad = 0, 0
        try:
            self.done = self._recover()
            self._arrays = self._open_arrays(identity)
        except BaseException:
            self._release()
            raise

    def _recover(self) -> npt.NDArray[np.uint64]:
        """Reads the log, cuts off an incomplete line, and returns the finished keys, sorted."""
        keys, end = array("Q"), 0
        for line, end in whole_lines(self.folder / LOG):  # noqa: B007
            keys.append(int(line["key"], 16))
            self._count(line.get("label"), "error" in line)
        os.ftruncate(self._log, end)
        os.lseek(self._log, end, os.SEEK_SET)
        return np.sort(np.frombuffer(keys, np.uint64)) if keys else np.empty(0, np.uint64)

    def _open_arrays(self, identity: Identity) -> tuple[GrowingArray, GrowingArray, GrowingArray]:
        opened: list[GrowingArray] = []
        try:
            for name, dtype, row, rows in (
                (FEATURES, STORED[identity.storage], (identity.feature_dim,), self._views),
                (LABELS, np.int64, (), 1),
                (HASHES, np.uint8, (32,), 1),
            ):
                path = self.folder / name
                opened.append(GrowingArray(path, dtype, row, rows * self.samples))
        except ValueError as error:
            for opened_array in opened:
                opened_array.close()
            raise CacheError(
                f"{self.folder} is damaged: {error}, but {LOG} lists that many",
                hint="extract the features again into another folder",
            ) from error
        features, labels, hashes = opened
        return features, labels, hashes

    def is_done(self, sample: Sample) -> bool:
        """Whether an earlier pass has processed a sample."""
        key = np.uint64(int(key_of(sample), 16))
        place = int(np.searchsorted(self.done, key))
        return place < len(self.done) and bool(self.done[place] == key)

    def is_older_than(self, path: Path) -> bool:
        """Whether a file was modified after the last pass, going by its modification time."""
        try:
            return path.stat().st_mtime > self._last
        except OSError:
            return False  # it was deleted

    def append(self, outcomes: Sequence[Decoded], features: npt.NDArray[np.float32]) -> None:
        """Adds a batch atomically: if this process is killed, entirely or not at all.

        Args:
            outcomes: One per sample, skipped ones too.
            features: ``(samples * views, feature_dim)``; rows of skipped samples are ignored.

        Raises:
            CacheError: A feature is not finite, or too large for the cache's data type.
        """
        if self.card.complete:  # incomplete until this pass has finished
            self.card = self.card.model_copy(update={"complete": False})
            write_card(self.folder, self.card)
        good = np.array([outcome.error is None for outcome in outcomes], bool)
        kept = [outcome for outcome in outcomes if outcome.error is None]
        stored = self._stored(features[np.repeat(good, self._views)], kept)
        rows, labels, hashes = self._arrays
        rows.append(stored)
        numbers = [self._count(outcome.label, False) for outcome in kept]
        labels.append(np.array(numbers, np.int64))
        digests = b"".join(bytes.fromhex(outcome.sha256) for outcome in kept)
        hashes.append(np.frombuffer(digests, np.uint8).reshape(-1, 32))
        self.bad += len(outcomes) - len(kept)
        lines = (json.dumps(_line(outcome), ensure_ascii=False) + "\n" for outcome in outcomes)
        _write(self._log, "".join(lines).encode())

    def _stored(
        self, features: npt.NDArray[np.float32], kept: Sequence[Decoded]
    ) -> npt.NDArray[Any]:
        """Converts features to the cache's data type, which must hold all of them."""
        storage = self.card.identity.storage
        with np.errstate(over="ignore"):
            stored = features.astype(STORED[storage])
        finite = np.isfinite(stored).all(axis=1)
        if not finite.all():
            name = kept[int(np.argmin(finite)) // self._views].sample.name
            raise CacheError(
                f"features of {name} are not finite in {storage}",
                hint="use --storage fp32 and a new folder; if it is fp32, the engine is at fault",
            )
        return stored

    def close(self, *, complete: bool, seconds: float = 0.0) -> Card:
        """Finishes the arrays and writes the card."""
        for stored in self._arrays:
            stored.close(sync=complete)
        if complete:
            os.fsync(self._log)
        self.card = self.card.model_copy(
            update={
                "complete": complete,
                "samples": self.samples,
                "bad": self.bad,
                "labels": tuple(self._classes),
                "seconds": round(self.card.seconds + seconds, 3),
            }
        )
        write_card(self.folder, self.card)
        self._release()
        return self.card

    def _count(self, label: str | None, bad: bool) -> int:
        """Counts a sample and returns its class's number, in order of first appearance."""
        if bad:
            self.bad += 1
            return NO_LABEL
        self.samples += 1
        return NO_LABEL if label is None else self._classes.setdefault(label, len(self._classes))

    def _release(self) -> None:
        os.close(self._log)
        os.close(self._lock)


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
                line: LogLine = json.loads(text)
                int(line["key"], 16)
            except (ValueError, TypeError, KeyError) as error:
                raise CacheError(
                    f"{path}: line {number} is damaged",
                    hint="extract the features again into another folder",
                ) from error
            yield line, end


def key_of(sample: Sample) -> str:
    """Returns a sample's key, unique in its data set: 64 bits in hexadecimal."""
    return sha256_bytes((sample.key or sample.name).encode("utf-8", "surrogateescape"))[:16]


def _forget_bad(log: Path) -> None:
    """Removes unusable images from a log so that they are tried again."""
    if not log.is_file() or not any("error" in line for line, _ in whole_lines(log)):
        return
    with whole(log) as partial, partial.open("wb") as file:
        for line, _ in whole_lines(log):
            if "error" not in line:
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _last_written(folder: Path) -> float:
    """Returns when a pass last wrote to a cache, in seconds since 1970; infinity if never."""
    try:
        return (folder / LOG).stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _line(outcome: Decoded) -> LogLine:
    sample = outcome.sample
    line: LogLine = {"key": key_of(sample), "name": in_utf8(sample.name)}
    if outcome.label is not None:
        line["label"] = outcome.label
    if outcome.error:
        line["error"] = outcome.error
    else:
        line["sha256"] = outcome.sha256
    return line


def _is_leftover(path: Path) -> bool:
    """Whether a file is left over from a pass that was killed before it wrote its card."""
    return path.name in (".lock", "card.json.part")


def _lock(folder: Path) -> int:
    import fcntl

    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise CacheError(
            f"another zoo features process is writing {folder}",
            hint="wait until it finishes, or stop it",
        ) from error
    return lock


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
