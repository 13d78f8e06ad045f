"""The chunks of a range of a pack, as its bytes arrive."""

from __future__ import annotations

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
    """Writes the chunks of a range while the rest of it is on its way.

    Attributes:
        taken: Bytes of the range that have arrived.

    Args:
        target: The blob that the chunks are part of.
        span: The range.
    """

    def __init__(self, target: Target, span: Span) -> None:
        self.taken = 0
        self._target, self._span = target, span
        self._batch = Batch(target)
        self._begun = bytearray()
        self._next = 0

    def take(self, piece: bytes) -> None:
        """Writes the chunks that are complete with the next bytes of the range.

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
                self._put(number, data[start:end], size)
            else:
                self._put(number, memoryview(b"".join((self._begun, data[:end]))), size)
                self._begun.clear()
            self._next += 1

    def _put(self, number: int, frame: memoryview, size: int) -> None:
        """Writes a chunk to its places, perhaps only with the next ones."""
        try:
            data = content(frame, size)
        except ValueError as error:
            raise self._damaged(number, str(error)) from error
        self._batch.add(self._target.lacking[number], data)
        if number in self._target.again:
            for at in self._target.again[number]:
                self._batch.add(at, data)

    def finish(self) -> None:
        """Writes what is not written yet.

        Raises:
            DamagedChunkError: The range ended within a chunk.
        """
        self._batch.flush()
        if self._next < len(self._span.chunks):
            raise self._damaged(self._span.chunks[self._next], "the pack ends before it")

    def _damaged(self, number: int, what: str) -> DamagedChunkError:
        return DamagedChunkError(Chunk(*self._target.chunks.chunks[number]), what)
