"""Files that are put together from chunks."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from typing_extensions import Self

from zoo.schema.chunks import ChunkList
from zoo.stores.base import Progress
from zoo.util.digest import sha256_bytes

_TOGETHER = 4 << 20
"""Bytes of chunks that are written together: one by one they would take most of the time."""

_PIECES = 512
"""Number of chunks in one system call: half of what Linux and macOS allow."""

_READ = 1 << 20
"""Bytes of the file that are read at once."""


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
    """A blob that is being made. Several threads may write to it.

    What was written is hashed as soon as everything before it was, mostly while the rest is on its
    way.

    Attributes:
        chunks: Its chunks.
        reused: Bytes that were on this machine.
        lacking: The chunks that it lacks, by their positions in the list, with the first place of
            each in the file.
        again: Further places of those that stand in several.

    Args:
        file: The file to write.
        chunks: Its chunks.
        progress: Called with the bytes that were written, by one thread at a time.
    """

    def __init__(self, file: FileIO, chunks: ChunkList, progress: Progress | None) -> None:
        self.chunks = chunks
        self.reused = 0
        self.lacking: dict[int, int] = {}
        self.again: dict[int, list[int]] = {}
        self._progress = progress or (lambda count: None)
        self._file = file
        self._turn = Lock()
        self._hasher = hashlib.sha256()
        self._hashed = 0
        self._ahead: dict[int, int] = {}

    def reuse(self, places: Places, *, resumed: bool) -> None:
        """Takes over the chunks that are on this machine, after checking them.

        Args:
            places: Chunks in other files.
            resumed: Whether the file has chunks of an earlier attempt.
        """
        with ExitStack() as opened, Batch(self) as batch:
            files: dict[Path, BinaryIO | None] = {}
            at = 0
            for number in self.chunks.order:
                sha256, size, _, _, _ = self.chunks.chunks[number]
                if resumed and sha256_bytes(data := read_at(self._file, at, size)) == sha256:
                    self._hash(at, (data,))
                    self._progress(size)
                elif found := _checked(places.get(sha256), sha256, size, files, opened):
                    batch.add(at, found)
                    self.reused += size
                elif number in self.lacking:
                    self.again.setdefault(number, []).append(at)
                else:
                    self.lacking[number] = at
                at += size

    def write(self, at: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Writes pieces one after the other where they belong."""
        with self._turn:
            self._file.seek(at)
            for first in range(0, len(pieces), _PIECES):
                _write(self._file, pieces[first : first + _PIECES])
            self._hash(at, pieces)
            self._progress(sum(map(len, pieces)))

    def _hash(self, at: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Hashes what was written, and what follows it and was written earlier."""
        end = at + sum(map(len, pieces))
        if at < self._hashed:  # written a second time, perhaps with other bytes
            self._hasher, self._hashed = hashlib.sha256(), 0
        if at != self._hashed:
            self._ahead[at] = end
            return
        for piece in pieces:
            self._hasher.update(piece)
        self._hashed = end
        while self._hashed in self._ahead:
            self._hash_file(self._ahead.pop(self._hashed))

    def _hash_file(self, end: int) -> None:
        """Hashes the file up to a byte."""
        self._file.seek(self._hashed)
        while data := self._file.read(min(_READ, end - self._hashed)):
            self._hasher.update(data)
            self._hashed += len(data)

    def digest(self) -> str:
        """Returns the digest of the file, once everything is written."""
        self._hash_file(self.chunks.whole.size)
        return self._hasher.hexdigest()


class Batch:
    """Chunks that are written together, in the order of the file.

    Args:
        target: The blob that they are part of.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._waiting: list[tuple[int, bytes | memoryview]] = []
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()  # after an error too: the next attempt finds what is right

    def add(self, at: int, data: bytes | memoryview) -> None:
        """Writes a chunk where it belongs, perhaps only with the next ones."""
        self._waiting.append((at, data))
        self._size += len(data)
        if self._size >= _TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Writes what is not written yet."""
        run: list[bytes | memoryview] = []
        start = end = 0
        for at, data in sorted(self._waiting, key=itemgetter(0)):
            if at != end and run:
                self._target.write(start, run)
                run = []
            if not run:
                start = at
            run.append(data)
            end = at + len(data)
        if run:
            self._target.write(start, run)
        self._waiting.clear()
        self._size = 0


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
