"""Memory that a process fills and hands to its parent, which maps it instead of copying it."""

from __future__ import annotations

import mmap
import os
import socket

import numpy as np
import numpy.typing as npt

AVAILABLE = hasattr(os, "memfd_create") and hasattr(socket, "send_fds")
"""Whether this system has what it takes."""

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
    _, (memory, *_), *_ = socket.recv_fds(ours, 1, 1)
    try:
        if not os.fstat(memory).st_size:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(memory, 0, prot=mmap.PROT_READ), np.uint8)
    finally:
        os.close(memory)


def write_all(memory: int, data: memoryview) -> None:
    """Appends bytes."""
    while data:
        data = data[os.write(memory, data) :]
