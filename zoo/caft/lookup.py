"""Finds the rows of a cache by content, and the lines of its log by key, with sorted arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


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

    def find(self, key: str) -> int | None:
        """Returns the number of the last line with a key in hexadecimal, None if there is none."""
        number = np.uint64(int(key, 16))
        place = int(np.searchsorted(self._sorted, number, "right")) - 1
        if place < 0 or self._sorted[place] != number:
            return None
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
