"""Messages between a pass and the workers of a cluster: a part's samples there, its features back.

A message is a header, JSON, and then bytes that the header measures. Nothing is pickled, and what
comes from a worker is checked before it is used: any process with a certificate of the cluster may
pose as one.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import abspath
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from zoo.caft.augment import Augmentation
from zoo.caft.content import digest_of, is_preprocessed
from zoo.caft.decode import Prepared
from zoo.caft.decode_process import reason_of
from zoo.caft.engine_process import Loaded
from zoo.caft.faults import check_fault
from zoo.caft.feed import DecodeMode
from zoo.caft.sample import Item, Sample
from zoo.caft.stamps import FileRead, identity_of
from zoo.inference.preprocess import Exif, as_photo
from zoo.util.digest import sha256_bytes
from zoo.util.errors import DatasetError, RunError

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
    """What the parts of a pass have in common.

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
    """What a worker returns.

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


@dataclass(kw_only=True)
class Packed:
    """A sample of a part on the side of the pass.

    Attributes:
        sample: The sample; its label is known.
        sent: Its image, if that is not in a file.
        data: The bytes of that image.
        digest: The digest that its row must have, empty if it is not known.
        size: Bytes that it takes in a message if its image is sent.
        send: Whether its file must be sent, because the workers lack it.
    """

    sample: Sample
    sent: Sent | None = None
    data: bytes = b""
    digest: str = ""
    size: int = 0
    send: bool = False


def pack(sample: Sample, exif: Exif) -> Packed:
    """Prepares a sample for workers; loads its image unless that is in a file.

    Raises:
        DatasetError: Its label is no class.
        MachineError: A fault of this machine.
    """
    read = sample.read
    if isinstance(read, FileRead):
        try:
            size = read.size if read.size is not None else os.stat(read.path).st_size
        except (OSError, ValueError):
            return Packed(sample=sample, send=True)  # reading it gives the reason
        return Packed(sample=sample, size=size)
    try:
        image = read()
        if isinstance(image, Item):
            sample, image = replace(sample, label=image.label), image.image
        sent, data, digest = _encoded(sample.name, image, exif)
    except DatasetError:
        raise
    except Exception as error:  # a data set's own code may raise anything
        check_fault(error, sample.name)
        sent, data = _failed(sample.name, error)
        digest = ""
    return Packed(sample=sample, sent=sent, data=data, digest=digest, size=len(data))


def entry_of(packed: Packed, *, send: bool) -> tuple[InFile | Sent, bytes]:
    """Returns a sample's entry in a message and its bytes.

    Args:
        packed: The sample.
        send: Whether to send the bytes of its file.

    Raises:
        MachineError: A fault of this machine.
    """
    if packed.sent is not None:
        return packed.sent, packed.data
    read, name = packed.sample.read, packed.sample.name
    assert isinstance(read, FileRead)
    try:
        if not (send or packed.send):
            status = os.stat(read.path)
            return InFile(
                name=name,
                path=abspath(read.path),
                start=read.start,
                size=read.size,
                file_size=status.st_size,
                mtime_ns=status.st_mtime_ns,
            ), b""
        data = read()
    except Exception as error:
        check_fault(error, name)
        return _failed(name, error)
    packed.digest = sha256_bytes(data)
    return Sent(kind="bytes", name=name, length=len(data)), data


def _encoded(name: str, image: Any, exif: Exif) -> tuple[Sent, bytes, str]:
    if isinstance(image, bytes):
        sent = Sent(kind="bytes", name=name, length=len(image))
        return sent, image, sha256_bytes(image)
    digest = digest_of(image)
    if is_preprocessed(image):
        array = np.ascontiguousarray(image, np.float32)
        data, shape = array.tobytes(), tuple(array.shape)
        return Sent(kind="input", name=name, length=len(data), shape=shape), data, digest
    photo = as_photo(image, exif)
    data = photo.tobytes()
    shape = (photo.height, photo.width)
    return (
        Sent(kind="pixels", name=name, length=len(data), shape=shape, digest=digest),
        data,
        digest,
    )


def _failed(name: str, error: Exception) -> tuple[Sent, bytes]:
    data = reason_of(error).encode(errors="replace")
    return Sent(kind="error", name=name, length=len(data)), data


def sample_of(entry: InFile | Sent, data: memoryview) -> Sample:
    """Returns the sample of an entry on the side of the worker."""
    if isinstance(entry, InFile):
        read: Any = _file_of(entry)
    else:
        read = Loaded(image=_image_of(entry, data))
        if entry.kind == "error":
            read = Loaded(error=RunError(bytes(data).decode()))
    return Sample(name=entry.name, label=None, read=read)


def _image_of(entry: Sent, data: memoryview) -> Any:
    match entry.kind:
        case "bytes":
            return bytes(data)
        case "pixels":
            height, width = entry.shape
            photo = Image.frombytes("RGB", (width, height), bytes(data))
            return Prepared(photo=photo, digest=entry.digest)
        case "input":
            return np.frombuffer(data, np.float32).reshape(entry.shape)
        case "error":
            return None


def _file_of(entry: InFile) -> FileRead:
    """Returns what reads a file; a range of it only as long as the file stays as it is now."""
    path = Path(entry.path)
    unchanged = identity_of(os.stat(path)) if entry.size is not None else None
    return FileRead(path, entry.start, entry.size, unchanged)


def is_same(entry: InFile | Sent) -> bool:
    """Whether this machine can read the file of an entry, and it is as the pass sees it."""
    if not isinstance(entry, InFile):
        return True
    try:
        file = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return False
    try:
        status = os.fstat(file)
    finally:
        os.close(file)
    found = (status.st_size, status.st_mtime_ns)
    return stat.S_ISREG(status.st_mode) and found == (entry.file_size, entry.mtime_ns)


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
