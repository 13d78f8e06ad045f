"""Writes a feature cache so that being killed at any moment loses no finished batch.

A cache is a folder::

    card.json        engine, preprocessing, names of the classes
    features.npy     (samples * views, feature_dim), float32 or float16
    labels.npy       (samples,), int64: number of the class, -1 if there is none
    hashes.npy       (samples, 32), uint8: SHA-256 of each image
    sums.npy         (samples,), uint32: CRC-32 of each sample's features
    samples.jsonl    a line per image, skipped ones too: name, label, digest or error
    stamps.npy       what tells that a file has not changed; may be deleted

A batch goes to the arrays first and to ``samples.jsonl`` last, in one write. The complete lines of
that log say what is done; rows of the arrays beyond them are left over from a kill and are cut off.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.arrange import NEXT, READY, Draft, arrange, settle
from zoo.caft.arrays import check_arrays, check_card
from zoo.caft.cache_files import CacheFiles
from zoo.caft.card import CARD, Card, Identity, check_same, read_card, write_card
from zoo.caft.decode import Decoded
from zoo.caft.files import (
    FEATURES,
    HASHES,
    LABELS,
    LISTS,
    LOCK,
    LOG,
    NO_LABEL,
    STORED,
    SUMS,
    all_finite,
    line_of,
    lock,
    read_log,
    sums_of,
    whole_lines,
)
from zoo.caft.stamps import STAMPS
from zoo.util.digest import sha256_file
from zoo.util.errors import CacheError

Sums = npt.NDArray[np.uint32] | None
"""What :func:`zoo.caft.files.sums_of` returns, if it is known already."""

__all__ = ["FEATURES", "HASHES", "LABELS", "LOG", "NO_LABEL", "STORED", "CacheWriter"]


class CacheWriter:
    """Appends to a feature cache; only one process at a time can. Writes nothing before it must.

    Args:
        folder: The cache's folder; created if missing.
        identity: The engine and the settings that make the rows.
        source: Name of the data set; names of samples are unique within it.
        moved: Whether to accept another name than the cache's, for a data set that was moved.
        former: Other names of the same data set.

    Attributes:
        card: The cache's card.
        old: The log as it was opened.
        unlabelled: Number of images without a label.
        writable: Whether this user may write to the cache.
        source_before: Name of the data set that the cache was made from.

    Raises:
        CacheError: The folder holds features of another engine or data set or other files, or
            another process is writing it.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        source: str = "",
        *,
        moved: bool = False,
        former: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        is_empty = _is_empty(folder)  # whatever it was made for, it holds nothing of that
        card = None if is_empty else _card_of(folder, identity)
        if card is not None and not moved:
            _check_source(folder, card, source, former)
        self.source_before = source if card is None else card.source
        if card is not None:
            card = card.model_copy(update={"source": source})
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock(folder)
        self.writable = self._lock is not None
        self.card = card or Card(identity=identity, source=source)
        self._views = identity.augmentation.views
        try:
            if is_empty:
                _take_over(folder)
            if self.writable:
                settle(folder)
            if card is None:
                write_card(folder, self.card)
            of_list = not self.card.fingerprint and Path(source).suffix.lower() in LISTS
            self.old = read_log(folder / LOG, of_list=of_list)
            check_arrays(folder, identity, self.old)
            check_card(folder, self.card, self.old)
        except BaseException:
            self._unlock()
            raise
        self._card_before = self.card
        self._classes = dict(self.old.classes)
        self.samples, self.bad = self.old.samples, self.old.bad
        self.unlabelled = self.old.unlabelled
        self._files = CacheFiles(folder, identity, self.old.end)

    def append(
        self, outcomes: Sequence[Decoded], features: npt.NDArray[Any], sums: Sums = None
    ) -> None:
        """Adds a batch atomically: if this process is killed, entirely or not at all.

        Args:
            outcomes: One per sample, skipped ones too.
            features: ``(samples * views, feature_dim)``, float32 or the cache's data type; rows of
                skipped samples are ignored.
            sums: :func:`zoo.caft.files.sums_of` the features in the cache's data type; by default
                they are computed.

        Raises:
            CacheError: A feature is not finite, or too large for the cache's data type; or another
                process writes to the cache; or this user may not, and an image is usable.
        """
        if not self.writable:
            _check_skipped(self.folder, outcomes)
            return
        with _writing(self.folder):
            self._append(outcomes, features, sums)

    def _append(self, outcomes: Sequence[Decoded], features: npt.NDArray[Any], sums: Sums) -> None:
        kept, features, sums = _usable(outcomes, features, sums, self._views)
        stored = _in_storage(features, kept, self.card.identity)
        self._open_files()
        self._files.check_alone()
        with self._files.writing(stored):
            numbers = [self._number(outcome.label) for outcome in kept]
            digests = bytes.fromhex("".join([outcome.sha256 for outcome in kept]))
            lines = _lines_of(outcomes)
            if sums is None:
                sums = sums_of(stored, len(kept))
        self._files.append(
            np.array(numbers, np.int64),
            np.frombuffer(digests, np.uint8).reshape(-1, 32),
            sums,
            lines,
        )
        self.samples += len(kept)
        self.unlabelled += numbers.count(NO_LABEL)
        self.bad += len(outcomes) - len(kept)

    def decoded_by(self, decoders: Sequence[str]) -> None:
        """Adds what decodes the images of this pass to the card."""
        names = dict.fromkeys([*self.card.decoders, *decoders])
        self.card = self.card.model_copy(update={"decoders": tuple(names)})

    def close(self, *, complete: bool, seconds: float = 0.0, draft: Draft | None = None) -> Card:
        """Finishes the arrays and writes the card, if there is something to write.

        A pass that did not finish and added no row leaves what it found.

        Args:
            complete: Whether the pass has finished.
            seconds: Its duration.
            draft: What the log is to be, None if it only grew.

        Returns:
            The cache's card.
        """
        draft = _final(draft, complete)
        try:
            with _writing(self.folder):
                if not complete and self.samples == self.old.samples:
                    self._undo()
                else:
                    self._finish(complete=complete, seconds=seconds, draft=draft)
        finally:
            self._files.close(sync=False)
            self._unlock()
        return self.card

    def _undo(self) -> None:
        """Removes what a pass wrote that added no row."""
        were_open = self._files.are_open
        self._files.close(sync=False)
        if not self.writable or self._files.have_grown:
            return
        if not self.old.samples:
            _delete_files(self.folder)
            _delete_folders(self.folder, self._made)
        elif were_open:
            os.truncate(self.folder / LOG, self.old.end)
            self.card = self._card_before
            write_card(self.folder, self.card)

    def _finish(self, *, complete: bool, seconds: float, draft: Draft | None) -> None:
        changed = self._files.are_open or draft is not None
        moved = self.source_before != self.card.source
        if not changed and (not complete or (self.card.complete and not moved)):
            return
        if not self.writable:
            if self.card.complete:
                return  # complete, under another name
            raise CacheError(
                f"{self.folder} is incomplete, and you may not write to it",
                hint="copy the folder to one of your own and name it with -o",
            )
        self._open_files()
        self._files.close(sync=complete)
        if draft is not None:
            new = arrange(self.folder, draft, self.old, self._views)
            self.samples, self.bad, self._classes = new.samples, new.bad, new.classes
            self.unlabelled = new.unlabelled
            self._files.cut(self.samples)
        self.card = self.card.model_copy(
            update={
                "complete": complete,
                "samples": self.samples,
                "bad": self.bad,
                "labels": tuple(self._classes),
                "seconds": round(self.card.seconds + seconds, 3),
            }
        )
        if complete:
            self.card = _finished(self.card, self.folder)
        write_card(self.folder, self.card)

    def _open_files(self) -> None:
        """Opens the files for writing, once; the card says that the cache is incomplete."""
        if not self._files.are_open:
            if self.card.complete:  # incomplete until this pass has finished
                self.card = self.card.model_copy(update={"complete": False})
                write_card(self.folder, self.card)
            self._files.open(self.samples)

    def _number(self, label: str | None) -> int:
        """Returns a class's number, in order of first appearance."""
        return NO_LABEL if label is None else self._classes.setdefault(label, len(self._classes))

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _final(draft: Draft | None, complete: bool) -> Draft | None:
    """Returns the draft of a pass that has finished; drops that of any other."""
    if draft is not None and not complete:
        draft.drop()
        return None
    return draft


def _check_source(folder: Path, card: Card, source: str, former: tuple[str, ...]) -> None:
    if card.source not in (source, *former):
        raise CacheError(
            f"{folder} has features of {card.source}, not of {source}",
            hint="use another folder, or --moved if it is the same data set elsewhere",
        )


def _finished(card: Card, folder: Path) -> Card:
    """Returns a card that tells whether the files are those of a finished pass."""
    digests = {name: sha256_file(folder / name) for name in (LABELS, HASHES)}
    fingerprint = sha256_file(folder / LOG)
    return card.model_copy(update={"fingerprint": fingerprint, "digests": digests})


def _check_skipped(folder: Path, outcomes: Sequence[Decoded]) -> None:
    """Checks that nothing of a batch has to be written: its images were skipped before."""
    usable = [outcome.sample.name for outcome in outcomes if outcome.error is None]
    if usable:
        raise CacheError(
            f"{folder} lacks {usable[0]}, which is usable now, and you may not write to it",
            hint="copy the folder to one of your own and name it with -o",
        )


def _card_of(folder: Path, identity: Identity) -> Card | None:
    """Returns the card of a cache that a pass may continue, None if there is none."""
    if folder.exists() and not folder.is_dir():
        raise CacheError(
            f"{folder} is a file; a feature cache is a folder",
            hint="choose a new or empty folder with -o",
        )
    card = read_card(folder) if folder.is_dir() else None
    if card is not None:
        check_same(folder, card.identity, identity)
    elif folder.is_dir() and not all(_is_leftover(path) for path in folder.iterdir()):
        raise CacheError(
            f"{folder} contains other files and is not a feature cache",
            hint="choose a new or empty folder with -o",
        )
    return card


def _is_empty(folder: Path) -> bool:
    """Whether a folder is a cache of no samples: none was usable, or its first pass was killed."""
    card = read_card(folder) if folder.is_dir() else None
    if card is None or card.samples or (folder / READY).exists() or not os.access(folder, os.W_OK):
        return False
    log = folder / LOG
    return not log.exists() or all("error" in line for line, _ in whole_lines(log))


def _take_over(folder: Path) -> None:
    """Deletes the files of a cache without samples, of which the lock is held.

    Raises:
        CacheError: Somebody else has written to it before it was locked.
    """
    if not _is_empty(folder):
        raise CacheError(f"another process has just written {folder}", hint="run the command again")
    _delete_files(folder)


def _delete_files(folder: Path) -> None:
    """Deletes the files of a cache, the card last, but not its lock."""
    shutil.rmtree(folder / NEXT, ignore_errors=True)
    for name in (STAMPS, LOG, FEATURES, LABELS, HASHES, SUMS, CARD):
        (folder / name).unlink(missing_ok=True)


def _delete_folders(folder: Path, made: list[Path]) -> None:
    """Deletes the lock of a cache, and the folders that its pass has made."""
    (folder / LOCK).unlink(missing_ok=True)
    with suppress(OSError):  # there are files of somebody else
        for path in made:
            path.rmdir()


def _is_leftover(path: Path) -> bool:
    """Whether a file is left over from a pass that was killed before it wrote its card."""
    return path.name in (LOCK, NEXT, READY) or path.name.startswith("card.json.")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raises a :class:`CacheError` if a file can't be written."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"can't write {folder}: {error.strerror or error}",
            hint="make room, and run the same zoo features command again; it resumes",
        ) from error


def _usable(
    outcomes: Sequence[Decoded], features: npt.NDArray[Any], sums: Sums, views: int
) -> tuple[Sequence[Decoded], npt.NDArray[Any], Sums]:
    """Returns a batch without the samples that were skipped."""
    kept = [outcome for outcome in outcomes if outcome.error is None]
    if len(kept) == len(outcomes):
        return outcomes, features, sums
    good = np.array([outcome.error is None for outcome in outcomes], bool)
    return kept, features[np.repeat(good, views)], None if sums is None else sums[good]


def _lines_of(outcomes: Sequence[Decoded]) -> bytes:
    """Returns the lines of a batch in the log."""
    return b"".join(
        [line_of(each.sample, each.label, each.sha256, each.error) for each in outcomes]
    )


def _in_storage(
    features: npt.NDArray[Any], kept: Sequence[Decoded], identity: Identity
) -> npt.NDArray[Any]:
    """Converts the features of samples to a cache's data type.

    Raises:
        CacheError: A feature is not finite, or too large for the data type.
    """
    with np.errstate(over="ignore"):
        stored = features.astype(STORED[identity.storage], copy=False)
    if not all_finite(stored):
        finite = np.isfinite(stored).all(axis=1)
        name = kept[int(np.argmin(finite)) // identity.augmentation.views].sample.name
        raise CacheError(
            f"features of {name} are not finite in {identity.storage}",
            hint="use --storage fp32 and a new folder; if it is fp32, the engine is at fault",
        )
    return stored
