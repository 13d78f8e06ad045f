"""Memory that a process fills and its parent maps (:mod:`zoo.caft.mapped_memory`), uncopied.

Little is imported: processes that read files start with this.
"""

from __future__ import annotations

import mmap
import os
import socket
from collections import deque
from collections.abc import Sequence

AVAILABLE = hasattr(os, "memfd_create") and hasattr(socket, "send_fds")
"""Whether this system has what it takes."""

_LEAST = 1 << 20  # bytes of a piece
KEPT = 32 << 20
"""Bytes up to which a piece is used again."""


class Piece:
    """Memory that a process fills for its parent; it grows as needed.

    Attributes:
        number: Its number.
        fresh: Whether the parent has yet to get it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.fresh = False
        self.used = 0
        """Number of bytes that are filled."""
        self._memory = memoryview(b"")
        self._file: int | None = None
        self.room(_LEAST)

    def room(self, size: int) -> memoryview:
        """Returns the next bytes, which count as filled."""
        start, self.used = self.used, self.used + size
        if self.used > len(self._memory):
            self._grow(start)
        return self._memory[start : self.used]

    @property
    def kept(self) -> bool:
        """Whether it is used again."""
        return len(self._memory) <= KEPT

    def hand_over(self, ours: socket.socket) -> None:
        """Sends it to the parent if it is fresh."""
        if self._file is not None:
            socket.send_fds(ours, [b"\0"], [self._file])
            os.close(self._file)
            self._file, self.fresh = None, False

    def _grow(self, filled: int) -> None:
        size = max(_LEAST, self.used)
        if self._file is not None:
            os.close(self._file)
        self._file = os.memfd_create("piece")
        os.ftruncate(self._file, size)
        memory = memoryview(mmap.mmap(self._file, size))
        memory[:filled] = self._memory[:filled]
        self._memory, self.fresh = memory, True


class FilledPieces:
    """The other process's side: the pieces that it fills.

    Args:
        ours: The socket that connects the processes.
    """

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self._pieces: dict[int, Piece] = {}
        self._free: deque[int] = deque()  # appended to in any thread
        self._count = 0

    def free(self, numbers: Sequence[int]) -> None:
        """Says that the parent no longer uses some pieces."""
        self._free.extend(numbers)

    def take(self) -> Piece:
        """Returns an empty piece."""
        try:
            piece = self._pieces[self._free.pop()]
        except IndexError:
            self._count += 1
            piece = self._pieces[self._count] = Piece(self._count)
        piece.used = 0
        return piece

    def hand_over(self, piece: Piece) -> None:
        """Gives a filled piece to the parent, which has been told its number."""
        piece.hand_over(self._ours)
        if not piece.kept:
            del self._pieces[piece.number]
