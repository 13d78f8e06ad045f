"""Copies pixels to the GPU through page-locked memory, which the bus reads at full rate."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.runtime import cuda

if TYPE_CHECKING:
    from cuda.core import Buffer, Device, Event, Stream

Bytes = npt.NDArray[np.uint8]

_STAGE = 8 << 20
"""Bytes of a page-locked buffer. While one is read by the GPU, the next is filled."""

_STAGES = 3
_THREADS = 4  # a core copies slower than the bus
_PIECE = 1 << 20  # bytes that a thread copies at a time


@dataclass(frozen=True)
class Uploaded:
    """Arrays in the GPU's memory."""

    buffer: Buffer | None
    addresses: tuple[int, ...]


class _Span(NamedTuple):
    """Bytes in the host's memory."""

    address: int
    size: int


class Upload:
    """Copies arrays to the GPU; used by one thread at a time.

    Args:
        device: The GPU.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._pool: ThreadPoolExecutor | None = None
        self._stages: list[cuda.HostMemory] = []
        self._busy: deque[tuple[cuda.HostMemory, Event]] = deque()

    def copy(self, arrays: Sequence[Bytes], stream: Stream) -> Uploaded:
        """Copies arrays, one after the other, into one buffer.

        Args:
            arrays: Contiguous bytes, of any sizes.
            stream: They are there in the order of this stream.
        """
        if not arrays:
            return Uploaded(None, ())
        ends = np.cumsum([array.size for array in arrays])
        buffer = self._device.allocate(int(ends[-1]), stream=stream)
        start = int(buffer.handle)
        copied = 0
        for spans in _stagefuls(_merged(arrays), _STAGE):
            stage = self._next_stage()
            size = self._fill(stage.array.ctypes.data, spans)
            cuda.copy_in(start + copied, stage.array[:size], stream)
            self._busy.append((stage, stream.record()))
            copied += size
        return Uploaded(buffer, (start, *(start + int(end) for end in ends[:-1])))

    def free(self, uploaded: Uploaded, stream: Stream) -> None:
        """Frees arrays once a stream has done what it has been given so far."""
        if uploaded.buffer is not None:
            uploaded.buffer.close(stream)

    def close(self) -> None:
        """Waits for the copies and frees the page-locked memory."""
        for _, read in self._busy:
            read.sync()
        for stage in self._stages:
            stage.close()
        if self._pool is not None:
            self._pool.shutdown()

    def _next_stage(self) -> cuda.HostMemory:
        """Returns a page-locked buffer that the GPU has read."""
        if len(self._stages) < _STAGES:
            self._stages.append(cuda.HostMemory((_STAGE,), np.uint8))
            return self._stages[-1]
        stage, read = self._busy.popleft()
        read.sync()
        return stage

    def _fill(self, stage: int, spans: list[_Span]) -> int:
        """Copies spans next to each other, in several threads if there is much; returns the end."""
        moves: list[tuple[int, int, int]] = []
        end = 0
        for span in spans:
            for start in range(0, span.size, _PIECE):
                size = min(_PIECE, span.size - start)
                moves.append((stage + end + start, span.address + start, size))
            end += span.size
        if end <= _PIECE:
            _move(moves)
        else:
            self._pool = self._pool or ThreadPoolExecutor(_THREADS, "upload")
            list(self._pool.map(_move, (moves[first::_THREADS] for first in range(_THREADS))))
        return end


def _move(moves: Sequence[tuple[int, int, int]]) -> None:
    """Copies bytes, without the GIL."""
    for target, origin, size in moves:
        ctypes.memmove(target, origin, size)


def _merged(arrays: Sequence[Bytes]) -> Iterator[_Span]:
    """Yields where the bytes of arrays are, those that follow each other in memory as one."""
    address = size = 0
    for array in arrays:
        start = array.ctypes.data
        if start != address + size:
            if size:
                yield _Span(address, size)
            address, size = start, 0
        size += array.size
    if size:
        yield _Span(address, size)


def _stagefuls(spans: Iterable[_Span], most: int) -> Iterator[list[_Span]]:
    """Yields spans in order, cut into runs of up to a number of bytes."""
    run: list[_Span] = []
    left = most
    for span in spans:
        done = 0
        while done < span.size:
            size = min(left, span.size - done)
            run.append(_Span(span.address + done, size))
            done, left = done + size, left - size
            if left == 0:
                yield run
                run, left = [], most
    if run:
        yield run
