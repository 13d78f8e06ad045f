"""Messages between a pass and the workers of a cluster: a part's samples there, its features back.

A message is a header, JSON, and then bytes that the header measures. Nothing is pickled, and what
comes from a worker is checked before it is used: any process with a certificate of the cluster may
pose as one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from zoo.caft.augment import Augmentation
from zoo.caft.feed import DecodeMode
from zoo.inference.preprocess import Exif

PROTOCOL = 1
"""Version of these messages."""

LONGEST_REASON = 4000
"""Characters of a reason that a worker gives."""

_HEADER = struct.Struct("<I")


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InFile(_Message):
    """A sample that a worker reads from a file, or from a range of it.

    Attributes:
        name: The sample's name, for messages.
        path: The file.
        start: First byte.
        size: Number of bytes; the whole file if None.
        file_size: Size of the file as the pass sees it.
        mtime_ns: Its modification time.
    """

    kind: Literal["file"] = "file"
    name: str
    path: str
    start: int
    size: int | None
    file_size: int
    mtime_ns: int


class Sent(_Message):
    """A sample whose image is in the message.

    Attributes:
        kind: The bytes of a file; RGB pixels; preprocessed float32; or the reason why there is no
            image.
        name: The sample's name, for messages.
        length: Number of its bytes in the message.
        shape: Shape of pixels or input.
        digest: Digest of an image that has no file.
    """

    kind: Literal["bytes", "pixels", "input", "error"]
    name: str
    length: int
    shape: tuple[int, ...] = ()
    digest: str = ""


Entry = Annotated[InFile | Sent, Field(discriminator="kind")]


class Setup(_Message):
    """The settings that all parts of a pass share.

    Attributes:
        store: URL of the repository.
        anonymous: Whether a bucket is read without credentials.
        record: The engine's build record, JSON: its digest and size are in it.
        augmentation: The views of each image.
        samples: Samples per batch.
        decode: How photos are decoded.
        exif: Whether to apply the EXIF orientation of photos.
        workers: Decoding threads of a machine; by default one per core.
        share: Number of workers that share the machine.
    """

    store: str
    anonymous: bool = False
    record: str
    augmentation: Augmentation
    samples: int
    decode: DecodeMode
    exif: Exif
    workers: int | None = None
    share: int = 1


class Request(_Message):
    """A part of a pass for a worker."""

    setup: Setup
    entries: tuple[Entry, ...]


class RowOutcome(_Message):
    """The outcome of a sample: its digest, or the reason why it was skipped."""

    sha256: str = Field(pattern=r"^([0-9a-f]{64})?$")
    error: str | None = Field(default=None, max_length=LONGEST_REASON)


class Answer(_Message):
    """A worker's result.

    Attributes:
        decoders: Names and versions of what decoded the photos.
        outcomes: One per sample, if the part was done; the features follow, float32.
        differ: Places of the samples whose file is not the same there; the part was not begun.
        fault: Why this worker can't do the part, which another may.
        hint: What to do about it.
        died: Whether the process of the engine died of the part.
    """

    decoders: tuple[Annotated[str, Field(max_length=200)], ...] = Field(default=(), max_length=8)
    outcomes: tuple[RowOutcome, ...] = ()
    differ: tuple[int, ...] = ()
    fault: str | None = None
    hint: str | None = None
    died: bool = False


def message(header: BaseModel, pieces: Sequence[bytes | memoryview]) -> bytes:
    """Returns a message of a header and the bytes that follow it."""
    head = header.model_dump_json().encode()
    return b"".join([_HEADER.pack(len(head)), head, *pieces])


def parts_of(data: bytes) -> tuple[bytes, memoryview]:
    """Returns the header of a message and what follows it.

    Raises:
        ValueError: It is too short.
    """
    if not isinstance(data, bytes) or len(data) < _HEADER.size:
        raise ValueError("it is not a message")
    (length,) = _HEADER.unpack_from(data)
    end = _HEADER.size + length
    if end > len(data):
        raise ValueError("its header is cut off")
    return data[_HEADER.size : end], memoryview(data)[end:]
