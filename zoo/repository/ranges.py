"""Which ranges of packs a blob's chunks are fetched in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from zoo.schema.chunks import Row
from zoo.stores.transfer import PART, WORKERS

GAP = 128 << 10
"""Bytes between two chunks up to which one request for both is cheaper than two."""

FEW = 3
"""Requests that one connection sends one after the other, rather than to open another."""

SPARE = 0.05
"""Share of what a download fetches that it may fetch besides, where that saves requests."""


@dataclass
class Span:
    """A range of a pack.

    Attributes:
        pack: Position of the pack in the list.
        offset: Where the range begins.
        length: Its length.
        chunks: Positions of the chunks in it that are lacking.
    """

    pack: int
    offset: int
    length: int
    chunks: list[int]


def enough_requests(size: int) -> int:
    """Returns how many requests for packs are no more than a blob's download takes whole.

    That asks for the length and for parts of :data:`PART`. The list of chunks comes on top. Of
    many parts, a twentieth more: ranges end with a chunk, so they are a little shorter.
    """
    parts = -(-size // PART)
    return 1 + parts + parts // 20


def connections(wanted: Sequence[Span]) -> int:
    """Returns how many ranges to fetch at once.

    A connection has to be opened first, which takes as long as a few requests on an open one. So
    there is one for each :data:`PART`, as for a blob's download whole, or for :data:`FEW` ranges.
    """
    parts = -(-sum(span.length for span in wanted) // PART)
    return max(1, min(WORKERS, max(parts, -(-len(wanted) // FEW))))


def spans(
    chunks: Sequence[Row], lacking: Collection[int], requests: int | None = None
) -> list[Span]:
    """Returns the ranges of packs that hold chunks, in few requests.

    Args:
        chunks: All chunks.
        lacking: Positions of those that are wanted.
        requests: Number of ranges from which on the bytes between two are fetched only if they are
            few. Of more, those with the least between them are joined, until there are so many or
            :data:`SPARE` is used up.
    """
    numbers = sorted(lacking, key=lambda number: chunks[number][2:4])
    made = _joined(chunks, numbers, GAP)
    if requests is None or len(made) <= requests:
        return made
    between = sorted(
        gap
        for one, other in pairwise(made)
        if one.pack == other.pack and (gap := other.offset - one.offset - one.length) > GAP
    )
    spare = SPARE * sum(span.length for span in made)
    reach = GAP
    for gap in between[: len(made) - requests]:
        spare -= gap
        if spare < 0:
            break
        reach = gap
    return _joined(chunks, numbers, reach)


def _joined(chunks: Sequence[Row], numbers: Iterable[int], reach: int) -> list[Span]:
    """Returns the ranges that hold chunks.

    Args:
        chunks: All chunks.
        numbers: Positions of those that are wanted, in the order of the packs.
        reach: Maximum number of bytes between two chunks of a range.
    """
    made: list[Span] = []
    pack = start = end = -1
    members: list[int] = []
    for number in numbers:
        _, _, at_pack, offset, stored = chunks[number]
        after = offset + stored
        if at_pack == pack and offset - end <= reach and after - start <= PART:
            end = max(end, after)
            members.append(number)
            continue
        if members:
            made.append(Span(pack, start, end - start, members))
        pack, start, end, members = at_pack, offset, after, [number]
    if members:
        made.append(Span(pack, start, end - start, members))
    return made
