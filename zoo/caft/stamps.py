"""File stamps: identify an unchanged file by its metadata, so that it isn't read again.

A stamp covers device, inode, size, and the modification and change times in nanoseconds. Programs
can't set the change time, so a file that is replaced and keeps an older modification time
(``cp -p``, ``rsync -a``, ``touch -d``) has another stamp. A file has no stamp, and is read again,
if a stamp could miss a change:

- on file systems that do not maintain these values as Linux's own do (FAT, FUSE, SMB), or whose
  type is unknown;
- if it was changed within the last minute (ten minutes on NFS): a second change may fall into the
  same clock tick, writes through a memory map update the time late, and a server's clock may
  differ.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from zoo.caft.files import own
from zoo.caft.growing import GrowingArray
from zoo.util.files import whole
from zoo.util.loading import LARGEST_PHOTO

STAMPS = "stamps.npy"
"""One row per file: its stamp, then the SHA-256 of its content. May be deleted at any time."""

_STAMP, _DIGEST = 16, 32
_SETTLED_AFTER = {
    **dict.fromkeys(
        ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "overlay"), 60
    ),
    **dict.fromkeys(("nfs", "nfs4"), 600),
}
"""Seconds after its last change before a file has a stamp, by file system."""

_OWN_DEVICES = frozenset({"btrfs", "overlay", "zfs"})
"""File systems whose files may have a different device number from their mount."""

Stamp = bytes

Data = TypeVar("Data", bytes, memoryview)


class FileRead:
    """Reads a file, or a range of it, and records its stamp.

    Args:
        file: The file's path; a string where there are many, since a ``Path`` takes as long to make
            as a small file to read.
        start: First byte.
        size: Number of bytes; the whole file by default.
        unchanged: Identity (:func:`identity_of`) that the file must still have; None for any.

    Attributes:
        stamp: The file's stamp when it was last read, None if it has none.
    """

    __slots__ = ("file", "size", "stamp", "start", "unchanged")

    def __init__(
        self,
        file: str | Path,
        start: int = 0,
        size: int | None = None,
        unchanged: tuple[int, ...] | None = None,
    ) -> None:
        self.file = os.fspath(file)
        self.start = start
        self.size = size
        self.unchanged = unchanged
        self.stamp: Stamp | None = None

    @property
    def path(self) -> Path:
        """The file's path."""
        return Path(self.file)

    def __call__(self) -> bytes:
        """Returns the bytes.

        Raises:
            OSError: The file can't be read, is no regular file, is larger than a photo may be, ends
                too early, or has changed.
        """
        return self._checked(_read)

    def into(self, room: Callable[[int], memoryview]) -> memoryview:
        """Reads the bytes into memory.

        Args:
            room: Returns memory of a size in bytes.

        Returns:
            The memory.

        Raises:
            OSError: See :meth:`__call__`.
        """
        return self._checked(lambda file, start, size: _fill(room(size), file, start))

    def _checked(self, read: Callable[[int, int, int], Data]) -> Data:
        """Returns what a function reads of the open file, from a byte on, of a size."""
        file, status = _open(self.file)
        try:
            before = self._stamp(status)
            size = status.st_size if self.size is None else self.size
            check_size(size)
            data = read(file, self.start, size)
            after = os.fstat(file)
        finally:
            os.close(file)
        if len(data) < size:
            raise OSError(f"it ended at byte {self.start + len(data):,}")
        identity = identity_of(after)
        if self.unchanged not in (None, identity):
            raise OSError(f"{self.path.name} has changed while it was read")
        self.stamp = before if identity_of(status) == identity else None
        return data

    def now(self) -> Stamp | None:
        """Returns the file's stamp without reading the file; None if there is none."""
        try:
            file, status = _open(self.file)  # opening makes NFS fetch current attributes
        except (OSError, ValueError):  # ValueError: a NUL in a name of a list
            return None
        os.close(file)
        return self._stamp(status)

    def _stamp(self, status: os.stat_result) -> Stamp | None:
        settled = _settled_after(status.st_dev, os.path.dirname(self.file))
        if settled is None:
            return None
        latest = max(status.st_ctime_ns, status.st_mtime_ns)
        if latest > time.time_ns() - round(settled * 1e9):
            return None
        values = (*identity_of(status), self.start, -1 if self.size is None else self.size)
        return hashlib.sha256(struct.pack("<QQqqqqq", *values)).digest()[:_STAMP]


def check_size(size: int) -> None:
    """Checks the number of bytes of a photo's file before they are read.

    Raises:
        OSError: They are too many; a sparse file of terabytes takes no space.
    """
    if size > LARGEST_PHOTO:
        raise OSError(f"it has {size:,} bytes; photos of at most {LARGEST_PHOTO:,} are read")


def identity_of(status: os.stat_result) -> tuple[int, ...]:
    """Returns what identifies a file's state: device, inode, size, and both times."""
    return (
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


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
        if data[:_STAMP] != stamp:
            return None
        self._used[row] = True
        return data[_STAMP:].hex()

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
            file = GrowingArray(partial, np.uint8, (_STAMP + _DIGEST,), 0)
            file.append(self._known[self._used])
            file.append(new)
            file.close()


def _rows(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8).reshape(-1, _STAMP + _DIGEST)


def _grow(path: Path, rows: int) -> GrowingArray:
    return GrowingArray(path, np.uint8, (_STAMP + _DIGEST,), rows)


def _load(path: Path) -> npt.NDArray[np.uint8]:
    """Maps the complete rows of a file of stamps; no rows if it can't be read."""
    header, row = 128, _STAMP + _DIGEST
    try:
        rows = (path.stat().st_size - header) // row
        if rows < 1:
            return np.empty((0, row), np.uint8)
        return np.memmap(path, np.uint8, "r", offset=header, shape=(rows, row))
    except OSError:
        return np.empty((0, row), np.uint8)


def _open(path: str) -> tuple[int, os.stat_result]:
    """Opens a regular file; returns its descriptor and status."""
    file = os.open(
        path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    )  # O_NONBLOCK: opening a pipe would block
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        os.close(file)
        raise OSError(f"{os.path.basename(path)} is not a regular file")
    return file, status


def _read(file: int, start: int, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := os.pread(file, min(size, 1 << 30), start)):
        pieces.append(piece)
        start, size = start + len(piece), size - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _fill(memory: memoryview, file: int, start: int) -> memoryview:
    """Reads bytes of a file from a place on into memory; returns the part that was filled."""
    filled = 0
    while filled < len(memory) and (count := os.preadv(file, [memory[filled:]], start + filled)):
        filled += count
    return memory[:filled]


@lru_cache(maxsize=1024)
def _settled_after(device: int, folder: str) -> float | None:
    """Returns after how many seconds a file of a device has a stamp, None for never."""
    return _SETTLED_AFTER.get(_file_system(device, folder))


def _file_system(device: int, folder: str) -> str:
    """Returns the type of the file system that a folder is on, empty if unknown."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    name = f"{os.major(device)}:{os.minor(device)}"
    real, best, kind = os.path.realpath(folder), "", ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        number, point = fields.split()[2], fields.split()[4].encode().decode("unicode_escape")
        if number == name:
            return rest.split()[0]
        inside = os.path.commonpath((real, point)) == point
        if inside and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    return kind if kind in _OWN_DEVICES else ""
