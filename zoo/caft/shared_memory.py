"""Memory that a process fills and its parent maps, so that nothing is copied."""

from __future__ import annotations

import mmap
import os
import socket
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt

AVAILABLE = hasattr(os, "memfd_create") and hasattr(socket, "send_fds")
"""Whether this system has what it takes."""

_LEAST = 1 << 20  # bytes of a piece
_KEPT = 32 << 20
"""Bytes up to which a piece is used again."""

Bytes = npt.NDArray[np.uint8]


def hand_over(ours: socket.socket, memory: int) -> None:
    """Sends memory, open as a file, to the process at the other end of a socket."""
    socket.send_fds(ours, [b"\0"], [memory])


def received(ours: socket.socket) -> Bytes:
    """Receives memory as an array of bytes, read-only; it is freed with the last view of it.

    Raises:
        OSError: The other process has ended.
        ValueError: The same.
    """
    mapped = _received(ours)
    return np.empty(0, np.uint8) if mapped is None else np.frombuffer(mapped, np.uint8)


def _received(ours: socket.socket) -> mmap.mmap | None:
    _, (memory, *_), *_ = socket.recv_fds(ours, 1, 1)
    try:
        size = os.fstat(memory).st_size
        return mmap.mmap(memory, size, prot=mmap.PROT_READ) if size else None
    finally:
        os.close(memory)


def write_all(memory: int, data: memoryview) -> None:
    """Appends bytes."""
    while data:
        data = data[os.write(memory, data) :]


class Pieces:
    """The parent's side of memory that is used again once nobody has a view of it.

    Fresh memory costs more than what is done with it: the system clears its pages, and each process
    that touches one is interrupted. Pieces have numbers, which the two processes tell each other.
    """

    def __init__(self) -> None:
        self._mapped: dict[int, mmap.mmap] = {}
        self._free: deque[int] = deque()  # other threads append to it
        self._gone: list[int] = []
        self._count = 0

    def take(self) -> tuple[int, list[int]]:
        """Returns the number of a piece to fill, and those that are no longer used."""
        gone, self._gone = self._gone, []
        try:
            return self._free.pop(), gone
        except IndexError:
            self._count += 1
            return self._count, gone

    def filled(self, number: int, ours: socket.socket, *, fresh: bool) -> Bytes:
        """Returns a piece, read-only, which the other process has filled.

        Args:
            number: Its number, from :meth:`take`. It is free again once no view of it is left.
            ours: The socket that connects the processes.
            fresh: Whether the other process hands over new memory for it.

        Raises:
            OSError: The other process has ended.
            ValueError: The same.
        """
        if fresh:
            mapped = _received(ours)
            if mapped is None:
                raise ValueError("no memory")
            self._mapped[number] = mapped
        view = np.frombuffer(self._mapped[number], np.uint8)
        if len(view) > _KEPT:
            del self._mapped[number]
            self._gone.append(number)
        else:
            weakref.finalize(view, self._free.append, number).atexit = False
        return view

    def close(self) -> None:
        """Frees the memory; views that are left stay valid."""
        self._mapped.clear()


class Piece:
    """Memory that a process fills for its parent; it grows as needed.

    Attributes:
        used: Number of bytes that are filled.
        fresh: Whether the parent has not got it yet.
    """

    def __init__(self) -> None:
        self.used = 0
        self.fresh = False
        self._memory = memoryview(b"")
        self._file: int | None = None

    def room(self, size: int) -> memoryview:
        """Returns the next bytes, which count as filled."""
        start, self.used = self.used, self.used + size
        if self.used > len(self._memory) or not self._memory:
            self._grow(start)
        return self._memory[start : self.used]

    def hand_over(self, ours: socket.socket) -> None:
        """Sends the memory to the parent if it is fresh."""
        if self._file is not None:
            hand_over(ours, self._file)
            os.close(self._file)
            self._file = None
            self.fresh = False

    def _grow(self, filled: int) -> None:
        size = max(_LEAST, self.used * 3 // 2)
        if self._file is not None:
            os.close(self._file)
        self._file = os.memfd_create("files")
        os.ftruncate(self._file, size)
        memory = memoryview(mmap.mmap(self._file, size))
        memory[:filled] = self._memory[:filled]
        self._memory, self.fresh = memory, True
