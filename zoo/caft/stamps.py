"""The stamps of a cache's files (:mod:`zoo.caft.file_read`), so that they are not read again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.caft.file_read import STAMP_BYTES, Stamp
from zoo.caft.files import own
from zoo.caft.growing import GrowingArray
from zoo.util.files import whole

STAMPS = "stamps.npy"
"""One row per file: its stamp, then the SHA-256 of its content. May be deleted at any time."""

_DIGEST = 32


class Stamps:
    """The stamps of a cache's files, and the digests of their contents.

    Args:
        folder: The cache's folder.
        writable: Whether new stamps are stored.
    """

    def __init__(self, folder: Path, *, writable: bool) -> None:
        self._path = folder / STAMPS
        self._known = _load(self._path)
        prefixes = self._known[:, :8].copy().view("<u8")[:, 0]
        self._order = np.argsort(prefixes, kind="stable")
        self._prefixes = prefixes[self._order]
        self._used = np.zeros(len(self._known), bool)
        self._writable = writable
        self._added: list[bytes] = []
        self._file: GrowingArray | None = None

    def digest(self, stamp: Stamp) -> str | None:
        """Returns the content digest of the file with this stamp, None if unknown."""
        prefix = np.frombuffer(stamp[:8], "<u8")[0]
        place = int(np.searchsorted(self._prefixes, prefix, "right")) - 1
        if place < 0 or self._prefixes[place] != prefix:
            return None
        row = int(self._order[place])
        data: bytes = self._known[row].tobytes()
        if data[:STAMP_BYTES] != stamp:
            return None
        self._used[row] = True
        return data[STAMP_BYTES:].hex()

    def add(self, stamp: Stamp | None, digest: str) -> None:
        """Records the content digest of the file with a stamp; :meth:`flush` writes it."""
        if stamp is not None and self._writable:
            self._added.append(stamp + bytes.fromhex(digest))

    def flush(self) -> None:
        """Writes the added stamps. Stops recording if that fails; then files are read again."""
        added, self._added = self._added, []
        if not added:
            return
        try:
            if self._file is None:
                self._file = _grow(own(self._path), len(self._known))
            self._file.append(_rows(b"".join(added)))
        except OSError:
            self._writable = False

    def close(self, *, complete: bool) -> None:
        """Writes the remaining stamps; after a complete pass, drops unused ones if they prevail."""
        self.flush()
        rows = len(self._known)
        with suppress(OSError):
            if self._file is not None:
                rows = self._file.rows
                self._file.close()
                self._file = None
            kept = int(self._used.sum()) + rows - len(self._known)
            if complete and self._writable and rows > 2 * kept + 1000:
                self._drop_unused()

    def _drop_unused(self) -> None:
        new = _load(self._path)[len(self._known) :]
        with whole(self._path) as partial:
            file = GrowingArray(partial, np.uint8, (STAMP_BYTES + _DIGEST,), 0)
            file.append(self._known[self._used])
            file.append(new)
            file.close()


def _rows(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8).reshape(-1, STAMP_BYTES + _DIGEST)


def _grow(path: Path, rows: int) -> GrowingArray:
    return GrowingArray(path, np.uint8, (STAMP_BYTES + _DIGEST,), rows)


def _load(path: Path) -> npt.NDArray[np.uint8]:
    """Maps the complete rows of a file of stamps; no rows if it can't be read."""
    header, row = 128, STAMP_BYTES + _DIGEST
    try:
        rows = (path.stat().st_size - header) // row
        if rows < 1:
            return np.empty((0, row), np.uint8)
        return np.memmap(path, np.uint8, "r", offset=header, shape=(rows, row))
    except OSError:
        return np.empty((0, row), np.uint8)
