"""The list of chunks that a blob is made of, and where they are stored.

Each chunk is a zstd frame, and many are concatenated in a pack. Packs and lists are blobs like
others. The index names the list by its digest, so its signature covers it. A later format needs
another field in the index: readers that know only this one then fetch the whole.

A blob that is not stored whole has ``chunked/<sha256>.json`` (:class:`Pieces`), by which whoever
knows only its digest finds its list. It is not signed: what is assembled has that digest or is
refused.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import Field, model_validator
from typing_extensions import Self

from zoo.schema.records import Blob, Record
from zoo.util.digest import Sha256
from zoo.util.strenum import StrEnum

LARGEST_CHUNK = 1 << 20
"""Maximum size of a chunk in bytes: no more of a frame is decompressed."""

LARGEST_LIST = 1 << 28
"""Maximum size of a list in bytes, uncompressed: enough for a blob of 20 GB."""

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
        stored: Its length there, compressed.
    """

    sha256: Sha256
    size: Annotated[int, Field(gt=0, le=LARGEST_CHUNK)]
    pack: _Count
    offset: _Count
    stored: _Length


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
        chunks: Its chunks, each once.
        order: Positions in ``chunks`` that make up the blob, from its first byte to its last.
    """

    whole: Blob
    packs: tuple[Blob, ...]
    chunks: tuple[Chunk, ...]
    order: tuple[_Count, ...]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for chunk in self.chunks:
            if chunk.pack >= len(self.packs):
                raise ValueError(f"a chunk is in pack {chunk.pack}, which is not listed")
            if chunk.offset + chunk.stored > self.packs[chunk.pack].size:
                raise ValueError("a chunk ends after its pack")
        if any(place >= len(self.chunks) for place in self.order):
            raise ValueError("a chunk of the blob is not listed")
        if (size := sum(self.chunks[place].size for place in self.order)) != self.whole.size:
            raise ValueError(f"the chunks have {size:,} bytes, the blob {self.whole.size:,}")
        return self
