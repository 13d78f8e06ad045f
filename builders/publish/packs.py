"""Packs of chunks, and which chunks are stored again so that readers need few requests."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zoo.repository.ranges import enough_requests, spans
from zoo.schema.chunks import Chunk, ChunkList
from zoo.schema.records import Blob
from zoo.util import zstd
from zoo.util.digest import sha256_bytes

_LEVELS = (-1, 1)
"""Of zstd, the first that is worth it: kernels are as small with -1 as with 3, and decompressed in
two thirds of the time; what consists of a few different bytes needs 1."""

_WORTH = 0.8
"""Share of a chunk's size up to which it is stored compressed.

Weights have 0.9 and more, kernels much less: readers get weights faster for a tenth more bytes.
"""

_AGAIN = 0.1
"""Share of a blob that may be stored again to save one request more than is needed."""


@dataclass(frozen=True)
class Stored:
    """Where a chunk is stored.

    Attributes:
        pack: The pack; None for the one that is being written.
        offset: Where it begins there.
        stored: Its length there.
        size: Its size.
    """

    pack: Blob | None
    offset: int
    stored: int
    size: int


class Pack:
    """Writes a pack, and knows the chunks of a model's other packs.

    Args:
        path: The file to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.chunks: dict[str, Stored] = {}
        self._file = path.open("wb")

    def know(self, chunks: ChunkList) -> None:
        """Learns where the chunks of a stored engine are."""
        for sha256, size, pack, offset, length in chunks.chunks:
            stored = Stored(chunks.packs[pack], offset, length, size)
            self.chunks.setdefault(sha256, stored)

    @property
    def size(self) -> int:
        """Bytes that were written."""
        return self._file.tell()

    def add(self, data: bytes) -> str:
        """Stores a chunk unless it is known; returns its digest."""
        digest = sha256_bytes(data)
        if digest not in self.chunks:
            self.chunks[digest] = self.store(data)
        return digest

    def store(self, data: bytes) -> Stored:
        """Stores a chunk, known or not."""
        frame = _frame(data)
        place = Stored(None, self._file.tell(), len(frame), len(data))
        self._file.write(frame)
        return place

    def close(self) -> None:
        """Completes the file."""
        self._file.close()


@contextmanager
def new_pack(path: Path) -> Iterator[Pack]:
    """Yields a pack to write; it is closed in the end."""
    pack = Pack(path)
    try:
        yield pack
    finally:
        pack.close()


def _frame(data: bytes) -> bytes:
    """Returns a chunk as it is stored."""
    for level in _LEVELS:
        frame = zstd.compress(data, level)
        if len(frame) <= _WORTH * len(data):
            return frame
    return frame if len(data) < zstd.SMALLEST_AS_IS else zstd.as_is(data)


def scattered(places: Mapping[str, Stored], end: int, size: int) -> list[str]:
    """Returns which chunks of a blob are to be stored again, as few bytes as possible.

    Args:
        places: Where the blob's chunks are stored, in its order.
        end: Where the pack that is being written ends.
        size: Size of the blob.

    Returns:
        Their digests, in the order of the blob: those of its smallest ranges.
    """
    rows, requests = _rows(places), enough_requests(size)
    fewer = _to_move(rows, end, requests - 1)
    cheap = sum(rows[number].stored for number in fewer) <= _AGAIN * size
    digests = list(places)
    return [digests[number] for number in (fewer if cheap else _to_move(rows, end, requests))]


def _to_move(rows: Sequence[Chunk], end: int, requests: int) -> list[int]:
    """Returns which chunks must lie at the end of the pack for so few requests."""
    every = range(len(rows))
    if len(spans(rows, every, requests)) <= requests:
        return []
    ranges = sorted(spans(rows, every), key=lambda span: sum(rows[n].stored for n in span.chunks))

    def moved(count: int) -> list[int]:
        return sorted(number for span in ranges[:count] for number in span.chunks)

    def is_enough(count: int) -> bool:
        after, at = list(rows), end
        for number in moved(count):
            after[number] = rows[number]._replace(pack=0, offset=at)
            at += rows[number].stored
        return len(spans(after, every, requests)) <= requests

    return moved(bisect_left(range(len(ranges)), True, key=is_enough))


def _rows(places: Mapping[str, Stored]) -> list[Chunk]:
    """Returns chunks with the numbers of their packs; that of the one being written is 0."""
    numbers: dict[str | None, int] = {None: 0}
    rows = []
    for digest, place in places.items():
        name = place.pack.sha256 if place.pack else None
        number = numbers.setdefault(name, len(numbers))
        rows.append(Chunk(digest, place.size, number, place.offset, place.stored))
    return rows
