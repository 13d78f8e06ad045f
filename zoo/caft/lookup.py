"""Finds the rows of a cache by content, and the lines of its log by key, with sorted arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")
_LOOKED_AT = 16  # lines that share a key


class Rows:
    """Finds the rows of a cache by content.

    Args:
        hashes: SHA-256 of each row's image, ``(samples, 32)`` uint8.
    """

    def __init__(self, hashes: npt.NDArray[np.uint8]) -> None:
        self._hashes = hashes
        prefixes = np.ascontiguousarray(hashes[:, :8]).view("<u8")[:, 0]
        self._order = np.argsort(prefixes, kind="stable")
        self._prefixes = prefixes[self._order]

    def find(self, digest: str) -> int | None:
        """Returns the first row whose image has this digest, None if there is none."""
        data = bytes.fromhex(digest)
        prefix = np.frombuffer(data[:8], "<u8")[0]
        place = int(np.searchsorted(self._prefixes, prefix))
        while place < len(self._order) and self._prefixes[place] == prefix:
            row = int(self._order[place])
            if self.is_of(row, data):
                return row
            place += 1
        return None

    @property
    def distinct(self) -> int:
        """Number of different images."""
        return len(np.unique(self._hashes.view("V32"))) if len(self._hashes) else 0

    def digest(self, row: int) -> str:
        """Returns the digest of a row's image."""
        return str(self._hashes[row].tobytes().hex())

    def is_of(self, row: int, digest: bytes) -> bool:
        """Whether the image of a row has this digest."""
        return bool(self._hashes[row].tobytes() == digest)


class Keys:
    """Finds the lines of a cache's log by key, and counts which keys were found.

    Args:
        keys: The key of each line, a 64-bit number; lines may share a key.
    """

    def __init__(self, keys: Sequence[int]) -> None:
        numbers = np.array(keys, np.uint64)
        self._order = np.argsort(numbers, kind="stable")
        self._sorted = numbers[self._order]
        self._found = np.zeros(len(numbers), bool)
        self._next: dict[int, int] = {}
        """By the first place of a key that lines share: all places before this one were found."""

    def find(self, key: str, fits: Callable[[int], bool]) -> int | None:
        """Returns the number of a line with a key.

        Of several it is the first that fits and was not found before; if none does, the last. A
        data set may have a name many times, and only the next few lines are looked at.

        Args:
            key: The key, in hexadecimal.
            fits: Whether the line of a number is the one that is meant.

        Returns:
            The number; None if no line has the key.
        """
        number = np.uint64(int(key, 16))
        first, end = (int(np.searchsorted(self._sorted, number, side)) for side in _SIDES)
        if first == end:
            return None
        start = self._next.get(first, first)
        while start < end and self._found[start]:
            start += 1
        if end - first > 1:
            self._next[first] = start
        places = range(start, min(end, start + _LOOKED_AT))
        place = next(
            (at for at in places if not self._found[at] and fits(int(self._order[at]))), end - 1
        )
        self._found[place] = True
        return int(self._order[place])

    @property
    def distinct(self) -> int:
        """Number of different keys."""
        return len(np.unique(self._sorted))

    @property
    def found(self) -> int:
        """Number of different keys that were found so far."""
        return len(np.unique(self._sorted[self._found]))
