"""The chunks of a range of a pack, written as the bytes of the range arrive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from zoo.repository.assembly import Batch, Target
from zoo.repository.ranges import Span
from zoo.schema.chunks import Chunk
from zoo.util.zstd import content


class DamagedChunkError(Exception):
    """A chunk is not what the list states.

    Attributes:
        chunk: The chunk.
        what: What is wrong with it.
    """

    def __init__(self, chunk: Chunk, what: str) -> None:
        super().__init__(what)
        self.chunk, self.what = chunk, what


class Unpacking:
    """Takes the bytes of a range, of which it holds little more than the last chunk's beginning.

    Attributes:
        taken: Number of bytes that have arrived.

    Args:
        target: The blob that the chunks are part of.
        span: The range.
        batch: Writes the chunks.
    """

    def __init__(self, target: Target, span: Span, batch: Batch) -> None:
        self.taken = 0
        self._target, self._span, self._batch = target, span, batch
        self._begun = bytearray()
        self._next = 0

    def take(self, piece: bytes) -> None:
        """Takes the next bytes of the range; writes the chunks that are complete with them.

        Raises:
            DamagedChunkError: One is damaged.
        """
        data = memoryview(piece)
        begin = self._span.offset + self.taken
        self.taken += len(data)
        numbers, rows = self._span.chunks, self._target.chunks.chunks
        while self._next < len(numbers):
            number = numbers[self._next]
            _, size, _, offset, stored = rows[number]
            start, end = offset - begin, offset - begin + stored
            if end > len(data):
                self._begun += data[max(0, start) :]
                return
            if start >= 0:
                frame = data[start:end]
            else:
                frame = memoryview(b"".join((self._begun, data[:end])))
                self._begun.clear()
            self._write(number, frame, size)
            self._next += 1

    def _write(self, number: int, frame: memoryview, size: int) -> None:
        """Writes a chunk to all of its places, perhaps only with the next ones."""
        try:
            data = content(frame, size)
        except ValueError as error:
            raise self._damaged(number, str(error)) from error
        self._batch.add(self._target.lacking[number], data)
        for at in self._target.again.get(number, ()):
            self._batch.add(at, data)

    def must_be_complete(self) -> None:
        """Checks that all chunks have arrived.

        Raises:
            DamagedChunkError: The pack is shorter than the list states.
        """
        if self._next < len(self._span.chunks):
            raise self._damaged(self._span.chunks[self._next], "the pack ends before its end")

    def _damaged(self, number: int, what: str) -> DamagedChunkError:
        return DamagedChunkError(Chunk(*self._target.chunks.chunks[number]), what)


@contextmanager
def unpacking(target: Target, span: Span) -> Iterator[Unpacking]:
    """Yields what takes the bytes of a range; in the end, all of its chunks are written.

    Raises:
        DamagedChunkError: The range ended within a chunk.
    """
    with Batch(target) as batch:
        taking = Unpacking(target, span, batch)
        yield taking
    taking.must_be_complete()
