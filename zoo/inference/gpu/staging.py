"""Copies arrays to the GPU through page-locked memory that several threads fill.

The driver copies ordinary memory through a small buffer of its own, with one thread: on the machine
that was measured at 10 GB/s, where the bus carries 50 and four threads fill 25
(``docs/results/feature-pass.md``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.runtime import cuda
from zoo.util.errors import RunError

if TYPE_CHECKING:
    from cuda.core import Event, Stream

Bytes = npt.NDArray[np.uint8]

_PLACE = 2 << 20
"""Bytes that a thread copies at a time."""

_PLACES = 16
_THREADS = 4
_WORTH = 2 * _PLACE
"""Bytes from which threads are worth starting."""


@dataclass(kw_only=True)
class _Place:
    """A piece of the page-locked memory.

    Attributes:
        memory: Its bytes.
        read: When the GPU has read what was in it last, None if it never was.
    """

    memory: Bytes
    read: Event | None = None


class Staging:
    """Page-locked memory for copies to the GPU; used by one thread at a time."""

    def __init__(self) -> None:
        self._host: cuda.HostMemory | None = None
        self._places: list[_Place] = []
        self._pool: ThreadPoolExecutor | None = None
        self._lockable = True

    def copy(self, destination: int, arrays: Sequence[npt.NDArray[Any]], stream: Stream) -> None:
        """Copies arrays to the GPU, one behind the other; they may change once this returns.

        Args:
            destination: Address in the GPU's memory.
            arrays: The arrays.
            stream: The stream that orders the copies.
        """
        flat = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
        if sum(map(len, flat)) < _WORTH or not self._open():
            for array in flat:
                cuda.copy_in(destination, array, stream)
                destination += len(array)
            return
        assert self._pool is not None
        filled: deque[tuple[_Place, Future[int]]] = deque()
        for number, pieces in enumerate(_pieces(flat)):
            if len(filled) == _PLACES:
                destination += _send(*filled.popleft(), destination, stream)
            place = self._places[number % _PLACES]
            if place.read is not None:
                place.read.sync()
            filled.append((place, self._pool.submit(_fill, place.memory, pieces)))
        while filled:
            destination += _send(*filled.popleft(), destination, stream)

    def close(self) -> None:
        """Frees the memory, once the GPU has read it."""
        for place in self._places:
            if place.read is not None:
                place.read.sync()
        self._places.clear()
        if self._pool is not None:
            self._pool.shutdown()
        if self._host is not None:
            self._host.close()
        self._host = self._pool = None

    def _open(self) -> bool:
        """Locks memory at the first use; returns whether there is any."""
        if self._host is None and self._lockable:
            try:
                self._host = cuda.HostMemory((_PLACES * _PLACE // 4,))
            except RunError:
                self._lockable = False
                return False
            memory = self._host.array.view(np.uint8)
            self._places = [_Place(memory=part) for part in np.split(memory, _PLACES)]
            self._pool = ThreadPoolExecutor(_THREADS, "staging")
        return self._host is not None


def _send(place: _Place, filled: Future[int], destination: int, stream: Stream) -> int:
    """Copies what a thread has put into a place; returns its size."""
    size = filled.result()
    cuda.copy_in(destination, place.memory[:size], stream)
    place.read = stream.record()
    return size


def _fill(memory: Bytes, pieces: Sequence[Bytes]) -> int:
    """Puts pieces one behind the other; returns their size."""
    size = 0
    for piece in pieces:
        np.copyto(memory[size : size + len(piece)], piece)  # without the GIL
        size += len(piece)
    return size


def _pieces(arrays: Sequence[Bytes]) -> Iterator[list[Bytes]]:
    """Yields arrays, or parts of them, that fill a place together."""
    pieces: list[Bytes] = []
    room = _PLACE
    for array in arrays:
        start = 0
        while start < len(array):
            piece = array[start : start + room]
            pieces.append(piece)
            start, room = start + len(piece), room - len(piece)
            if not room:
                yield pieces
                pieces, room = [], _PLACE
    if pieces:
        yield pieces
