"""Files that are put together from chunks."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from zoo.schema.chunks import ChunkList
from zoo.stores.base import Progress
from zoo.util.digest import sha256_bytes

_TOGETHER = 4 << 20
"""Bytes of chunks that are written together: one by one they would take most of the time."""

_PIECES = 512
"""Number of chunks in one system call: half of what Linux and macOS allow."""


@dataclass(frozen=True)
class Place:
    """Where a chunk is on this machine.

    Attributes:
        path: A file.
        offset: Where it begins there.
    """

    path: Path
    offset: int


Places = Mapping[str, Place]
"""Chunks on this machine, by digest."""


def reserve(file: FileIO, size: int) -> None:
    """Gives a file its final size, and its space on the disk where the system can.

    Chunks that come in another order than the file's are then written in half the time.

    Raises:
        OSError: The disk has not so much space.
    """
    file.truncate(size)
    if not size or not hasattr(os, "posix_fallocate"):  # macOS has none
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise


class Target:
    """A blob that is being made.

    Args:
        file: The file to write.
        chunks: Its chunks.
        progress: Called with the bytes that were written.
    """

    def __init__(self, file: FileIO, chunks: ChunkList, progress: Progress | None) -> None:
        self.chunks = chunks
        self.reused = 0
        self.lacking: dict[int, list[int]] = {}
        self._progress = progress or (lambda count: None)
        self._file = file
        self._waiting: list[bytes | memoryview] = []
        self._start = self._end = 0

    def reuse(self, places: Places, *, resumed: bool) -> None:
        """Takes over the chunks that are on this machine, after checking them.

        Args:
            places: Chunks in other files.
            resumed: Whether the file has chunks of an earlier attempt.
        """
        with ExitStack() as opened:
            files: dict[Path, BinaryIO | None] = {}
            at = 0
            for number in self.chunks.order:
                sha256, size, _, _, _ = self.chunks.chunks[number]
                if resumed and sha256_bytes(read_at(self._file, at, size)) == sha256:
                    self._progress(size)
                elif data := _checked(places.get(sha256), sha256, size, files, opened):
                    self.put(at, data)
                    self.reused += size
                else:
                    self.lacking.setdefault(number, []).append(at)
                at += size
            self.flush()

    def put(self, at: int, data: bytes | memoryview) -> None:
        """Writes a chunk where it belongs, perhaps only with the next ones."""
        if at != self._end or at - self._start >= _TOGETHER:
            self.flush()
            self._start = at
        self._waiting.append(data)
        self._end = at + len(data)

    def flush(self) -> None:
        """Writes what is not written yet."""
        if not self._waiting:
            return
        self._file.seek(self._start)
        for first in range(0, len(self._waiting), _PIECES):
            _write(self._file, self._waiting[first : first + _PIECES])
        self._progress(self._end - self._start)
        self._waiting.clear()
        self._start = self._end


def _write(file: FileIO, pieces: Sequence[bytes | memoryview]) -> None:
    """Writes pieces one after the other with one system call, if it writes all of them."""
    written = os.writev(file.fileno(), pieces)
    if written < sum(map(len, pieces)):  # on a disk that is nearly full, for one
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[file.write(rest) :]


def _checked(
    place: Place | None,
    sha256: str,
    size: int,
    files: dict[Path, BinaryIO | None],
    opened: ExitStack,
) -> bytes | None:
    """Returns a chunk from another file; None if it is not there any more."""
    if place is None:
        return None
    if place.path not in files:
        try:
            files[place.path] = opened.enter_context(place.path.open("rb"))
        except OSError:
            files[place.path] = None
    file = files[place.path]
    data = read_at(file, place.offset, size) if file else b""
    return data if sha256_bytes(data) == sha256 else None


def read_at(file: BinaryIO | FileIO, at: int, size: int) -> bytes:
    """Returns so many bytes of a file, fewer at its end."""
    file.seek(at)
    return file.read(size)
