"""The list of chunks that a blob is made of, and where they are stored.

Each chunk is a zstd frame, and many are concatenated in a pack. Packs and lists are blobs like
others. The index names the list by its digest, so its signature covers it. A later format needs
another field in the index: readers that know only this one then fetch the whole.

A blob that is not stored whole has ``chunked/<sha256>.json`` (:class:`Pieces`), by which whoever
knows only its digest finds its list. It is not signed: what is assembled has that digest or is
refused.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple, TypeAlias

from pydantic import Field, model_validator
from typing_extensions import Self

from zoo.schema.records import Blob, Record
from zoo.util.digest import Sha256
from zoo.util.strenum import StrEnum

LARGEST_CHUNK = 1 << 20
"""Maximum size of a chunk in bytes: no more of a frame is decompressed."""

LARGEST_LIST = 1 << 28
"""Maximum size of a list in bytes, uncompressed: enough for a blob of 40 GB."""

_Count = Annotated[int, Field(ge=0)]
_Length = Annotated[int, Field(gt=0)]


class Chunking(StrEnum):
    """How a repository stores engines.

    Attributes:
        OFF: Whole.
        ON: Whole, and as chunks.
        ONLY: As chunks; so are ONNX exports.
    """

    OFF = "off"
    ON = "on"
    ONLY = "only"


class Chunk(NamedTuple):
    """A chunk and where it is stored.

    Attributes:
        sha256: Its digest.
        size: Its size in bytes.
        pack: Position of its pack in the list's ``packs``.
        offset: Where it begins in the pack.
        stored: Its length there, as a frame.
    """

    sha256: str
    size: int
    pack: int
    offset: int
    stored: int


Row: TypeAlias = tuple[
    Sha256, Annotated[int, Field(gt=0, le=LARGEST_CHUNK)], _Count, _Count, _Length
]
"""A :class:`Chunk` in a list: of thousands, named ones would take twice as long to parse."""


class Pieces(Record):
    """What a blob is assembled from.

    Attributes:
        whole: The blob.
        listed: Its list of chunks.
        packs: The packs that hold them.
    """

    whole: Blob
    listed: Blob
    packs: tuple[Blob, ...]

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """The blobs that are stored in its place."""
        return self.listed, *self.packs


class ChunkList(Record):
    """The chunks of a blob.

    Attributes:
        whole: The blob.
        packs: The packs that hold its chunks.
        chunks: Its chunks, each once, as :class:`Chunk` has them.
        order: Positions in ``chunks`` that make up the blob, from its first byte to its last.
    """

    whole: Blob
    packs: tuple[Blob, ...]
    chunks: tuple[Row, ...]
    order: tuple[_Count, ...]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        packs = [pack.size for pack in self.packs]
        for _, _, pack, offset, stored in self.chunks:
            if pack >= len(packs):
                raise ValueError(f"a chunk is in pack {pack}, which is not listed")
            if offset + stored > packs[pack]:
                raise ValueError("a chunk ends after its pack")
        if max(self.order, default=-1) >= len(self.chunks):
            raise ValueError("a chunk of the blob is not listed")
        sizes = [size for _, size, *_ in self.chunks]
        if (size := sum([sizes[place] for place in self.order])) != self.whole.size:
            raise ValueError(f"the chunks have {size:,} bytes, the blob {self.whole.size:,}")
        return self
