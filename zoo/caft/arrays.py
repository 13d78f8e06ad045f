"""The arrays of a feature cache: their shapes, their state beside the log, and their opening."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.caft.card import Card, Identity
from zoo.caft.files import FEATURES, HASHES, LABELS, LOG, STORED, SUMS, Log, own, sums_of
from zoo.caft.growing import GrowingArray, mapped
from zoo.util.errors import CacheError
from zoo.util.files import whole
from zoo.util.names import counted

_AGAIN = "extract the features again into another folder"
_AT_ONCE = 4096  # samples

Shape = tuple[str, npt.DTypeLike, tuple[int, ...], int]


def shapes(identity: Identity) -> tuple[Shape, ...]:
    """Returns name, type, shape of a row, and rows per sample of each array."""
    return (
        (
            FEATURES,
            STORED[identity.storage],
            (identity.feature_dim,),
            identity.augmentation.views,
        ),
        (LABELS, np.int64, (), 1),
        (HASHES, np.uint8, (32,), 1),
        (SUMS, np.uint32, (), 1),
    )


def check_arrays(folder: Path, identity: Identity, log: Log) -> None:
    """Checks that the arrays have the rows that a log lists, of the images that it names.

    Raises:
        CacheError: They have not.
    """
    for name, dtype, row, rows in shapes(identity):
        if name == SUMS and not (folder / SUMS).exists():
            continue  # of an earlier version
        try:
            GrowingArray.check(folder / name, dtype, row, rows * log.samples)
        except ValueError as error:
            raise CacheError(
                f"{folder} is damaged: {error}; {LOG} lists {counted(log.samples, 'image')}",
                hint=_AGAIN,
            ) from error
    listed = np.frombuffer(bytes(log.digests), np.uint8).reshape(-1, 32)
    log.digests.clear()
    if not np.array_equal(listed, mapped(folder / HASHES, np.uint8, (32,), log.samples)):
        raise CacheError(
            f"{folder} is damaged: {HASHES} and {LOG} name different images", hint=_AGAIN
        )
    labels = np.frombuffer(log.labels, np.int64)[np.frombuffer(log.rows, np.int64) >= 0]
    if not np.array_equal(labels, mapped(folder / LABELS, np.int64, (), log.samples)):
        raise CacheError(
            f"{folder} is damaged: {LABELS} and {LOG} have different labels", hint=_AGAIN
        )


def check_card(folder: Path, card: Card, log: Log) -> None:
    """Checks that the card of a finished pass has the classes and samples that a log lists.

    Raises:
        CacheError: It has not.
    """
    if card.complete and (card.labels, card.samples) != (tuple(log.classes), log.samples):
        raise CacheError(
            f"{folder} is damaged: card.json and {LOG} list different classes or samples",
            hint=_AGAIN,
        )


def open_arrays(folder: Path, identity: Identity, samples: int) -> tuple[GrowingArray, ...]:
    """Opens the arrays for writing, cut off after a number of samples.

    Raises:
        OSError: One of them can't be written.
    """
    if samples and not (folder / SUMS).exists():
        _add_sums(folder, identity, samples)
    opened: list[GrowingArray] = []
    try:
        for name, dtype, row, rows in shapes(identity):
            opened.append(GrowingArray(own(folder / name), dtype, row, rows * samples))
    except BaseException:
        for array in opened:
            array.close()
        raise
    return tuple(opened)


def _add_sums(folder: Path, identity: Identity, samples: int) -> None:
    """Adds the sums that a cache of an earlier version lacks."""
    name, dtype, row, rows = shapes(identity)[0]
    features = mapped(folder / name, dtype, row, rows * samples)
    with whole(folder / SUMS) as partial:
        array = GrowingArray(partial, np.uint32, (), 0)
        for start in range(0, samples, _AT_ONCE):
            part = features[start * rows : (start + _AT_ONCE) * rows]
            array.append(sums_of(part, len(part) // rows))
        array.close()
