"""The memory that another process fills (:mod:`zoo.caft.shared_memory`), as arrays."""

from __future__ import annotations

import mmap
import os
import socket
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt

from zoo.caft.shared_memory import KEPT

Bytes = npt.NDArray[np.uint8]


class MappedPieces:
    """The parent's side: pieces of memory that the other process fills, again and again.

    Fresh memory costs more than what is done with it: the system clears its pages, and a process is
    interrupted at the first use of each.

    Args:
        ours: The socket that connects the processes.
    """

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self._mapped: dict[int, mmap.mmap] = {}
        self._free: deque[int] = deque()  # appended to in any thread

    def free(self) -> list[int]:
        """Returns the numbers of the pieces that nobody has a view of any more, once each."""
        return [self._free.popleft() for _ in range(len(self._free))]

    def filled(self, number: int, *, fresh: bool) -> Bytes:
        """Returns a piece, read-only.

        Args:
            number: Its number; it is free again once no view of it is left.
            fresh: Whether the other process hands it over now.

        Raises:
            OSError: The other process has ended.
            ValueError: The same.
        """
        if fresh:
            _, (memory, *_), *_ = socket.recv_fds(self._ours, 1, 1)
            try:
                self._mapped[number] = mmap.mmap(memory, 0, prot=mmap.PROT_READ)
            finally:
                os.close(memory)
        view = np.frombuffer(self._mapped[number], np.uint8)
        if len(view) > KEPT:
            del self._mapped[number]
        else:
            weakref.finalize(view, self._free.append, number).atexit = False
        return view

    def close(self) -> None:
        """Frees the pieces; views that are left stay valid."""
        self._mapped.clear()
