"""Reads a file of a data set, and tells by its metadata whether it has changed since: its stamp.

Little is imported: processes that read files start with this.

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
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from zoo.util.files import identity_of
from zoo.util.loading import LARGEST_PHOTO

STAMP_BYTES = 16

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
        unchanged: Identity (:func:`zoo.util.files.identity_of`) that the file must still have;
            None for any.

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
        return hashlib.sha256(struct.pack("<QQqqqqq", *values)).digest()[:STAMP_BYTES]


def check_size(size: int) -> None:
    """Checks the number of bytes of a photo's file before they are read.

    Raises:
        OSError: They are too many; a sparse file of terabytes takes no space.
    """
    if size > LARGEST_PHOTO:
        raise OSError(f"it has {size:,} bytes; photos of at most {LARGEST_PHOTO:,} are read")


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
