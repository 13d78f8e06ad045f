"""Writing a feature cache, so that a kill at any instant loses nothing that was finished.

A cache is a folder::

    card.json        which engine, which preprocessing, names of the classes
    features.npy     (samples * views, feature_dim), float32 or float16
    labels.npy       (samples,), int64: number of the class, -1 where there is none
    hashes.npy       (samples, 32), uint8: SHA-256 of each image
    samples.jsonl    a line for each image, bad ones too: name, label, digest or error

A batch goes to the arrays first and to ``samples.jsonl`` last, in one write. Its whole lines are
what has been done; whatever the arrays hold beyond them is what a kill left behind, and is cut off.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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


class CacheWriter:
    """Appends to a feature cache; one process at a time. A context manager.

    Args:
        folder: The cache; made unless it is there.
        identity: What makes the rows.
        source: Which data set they are of: names are told apart within one.
        moved: Whether the cache's data set has another name now.

    Raises:
        CacheError: It holds rows of another engine or data set, or something else, or another
            process writes it.
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
                    f"{folder} holds features of {card.source}, these would be of {source}",
                    hint="give another folder, or --moved if it is the same data set elsewhere",
                )
            card = card.model_copy(update={"source": source})
        elif folder.is_dir() and any(_no_leftover(path) for path in folder.iterdir()):
            raise CacheError(
                f"{folder} is a folder with other things in it, and no feature cache",
                hint="name a new or empty folder with -o",
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
        """Reads what has been done, cuts off a torn line, and returns the keys, sorted."""
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
            for one in opened:
                one.close()
            raise CacheError(
                f"{self.folder} is damaged: {error}, and {LOG} names that many",
                hint="make the features again in another folder",
            ) from error
        features, labels, hashes = opened
        return features, labels, hashes

    def is_done(self, sample: Sample) -> bool:
        """Whether a pass before this one has finished with a sample."""
        key = np.uint64(int(key_of(sample), 16))
        place = int(np.searchsorted(self.done, key))
        return place < len(self.done) and bool(self.done[place] == key)

    def is_older_than(self, path: Path) -> bool:
        """Whether a file has been written since the last pass, as far as its time tells."""
        try:
            return path.stat().st_mtime > self._last
        except OSError:
            return False  # it is gone

    def append(self, outcomes: Sequence[Decoded], features: npt.NDArray[np.float32]) -> None:
        """Adds a batch: whole or, if this process is killed, not at all.

        Args:
            outcomes: One for each sample, bad ones too.
            features: ``(samples * views, feature_dim)``; rows of bad samples are left out.

        Raises:
            CacheError: A feature is not a finite number, or not in the type of the storage.
        """
        if self.card.complete:  # until this pass has come to its end
            self.card = self.card.model_copy(update={"complete": False})
            write_card(self.folder, self.card)
        good = np.array([one.error is None for one in outcomes], bool)
        kept = [one for one in outcomes if one.error is None]
        stored = self._stored(features[np.repeat(good, self._views)], kept)
        rows, labels, hashes = self._arrays
        rows.append(stored)
        numbers = [self._count(one.label, False) for one in kept]
        labels.append(np.array(numbers, np.int64))
        digests = b"".join(bytes.fromhex(one.sha256) for one in kept)
        hashes.append(np.frombuffer(digests, np.uint8).reshape(-1, 32))
        self.bad += len(outcomes) - len(kept)
        lines = "".join(json.dumps(_line(one), ensure_ascii=False) + "\n" for one in outcomes)
        _write(self._log, lines.encode())

    def _stored(
        self, features: npt.NDArray[np.float32], kept: Sequence[Decoded]
    ) -> npt.NDArray[Any]:
        """Returns features in the type of the storage, if all of them fit it."""
        storage = self.card.identity.storage
        with np.errstate(over="ignore"):
            stored = features.astype(STORED[storage])
        finite = np.isfinite(stored).all(axis=1)
        if not finite.all():
            name = kept[int(np.argmin(finite)) // self._views].sample.name
            raise CacheError(
                f"features of {name} are beyond what {storage} holds, or not numbers",
                hint="take --storage fp32, in a new folder; if it has that, the engine is at fault",
            )
        return stored

    def close(self, *, complete: bool, seconds: float = 0.0) -> Card:
        """Finishes the arrays and writes the card."""
        for one in self._arrays:
            one.close(sync=complete)
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
        """Counts a sample and returns the number of its class, by first appearance."""
        if bad:
            self.bad += 1
            return NO_LABEL
        self.samples += 1
        return NO_LABEL if label is None else self._classes.setdefault(label, len(self._classes))

    def _release(self) -> None:
        os.close(self._log)
        os.close(self._lock)


def whole_lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yields each whole line of ``samples.jsonl``, with where it ends in the file.

    Raises:
        CacheError: A line before the last is not what it should be.
    """
    end = 0
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if not text.endswith(b"\n"):
                return  # torn by a kill
            end += len(text)
            try:
                line = json.loads(text)
                int(line["key"], 16)
            except (ValueError, TypeError, KeyError) as error:
                raise CacheError(
                    f"{path}: line {number} is damaged",
                    hint="make the features again in another folder",
                ) from error
            yield line, end


def key_of(sample: Sample) -> str:
    """Returns what tells a sample from others of its data set: 64 bits, hexadecimal."""
    return sha256_bytes((sample.key or sample.name).encode("utf-8", "surrogateescape"))[:16]


def _forget_bad(log: Path) -> None:
    """Takes the images that could not be used out of a log, so that they are tried again."""
    if not log.is_file() or not any("error" in line for line, _ in whole_lines(log)):
        return
    with whole(log) as partial, partial.open("wb") as file:
        for line, _ in whole_lines(log):
            if "error" not in line:
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _last_written(folder: Path) -> float:
    """Returns when a pass last wrote to a cache, seconds since 1970; infinite when none has."""
    try:
        return (folder / LOG).stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _line(one: Decoded) -> dict[str, Any]:
    known: dict[str, Any] = {"key": key_of(one.sample), "name": in_utf8(one.sample.name)}
    if one.label is not None:
        known["label"] = one.label
    return {**known, "error": one.error} if one.error else {**known, "sha256": one.sha256}


def _no_leftover(path: Path) -> bool:
    """Whether a file is anything but what a pass leaves that was killed before its card."""
    return path.name not in (".lock", "card.json.part")


def _lock(folder: Path) -> int:
    import fcntl

    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise CacheError(
            f"{folder}: another zoo features is writing here", hint="wait for it, or stop it"
        ) from error
    return lock


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
