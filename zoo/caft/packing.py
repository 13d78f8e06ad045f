"""Samples of a pass as entries of messages, and back on the workers of a cluster."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from functools import partial
from os.path import abspath
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.caft.content import digest_of, is_preprocessed
from zoo.caft.decode import Prepared
from zoo.caft.decode_process import reason_of
from zoo.caft.engine_process import Loaded
from zoo.caft.file_read import FileRead
from zoo.caft.labels import own_class
from zoo.caft.sample import Item, Sample
from zoo.caft.wire import InFile, Sent
from zoo.inference.preprocess import Exif, as_photo
from zoo.util.digest import sha256_bytes
from zoo.util.errors import DatasetError, RunError
from zoo.util.faults import MachineError, check_fault, persistently
from zoo.util.files import identity_of
from zoo.util.names import escaped


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
        unsayable = escaped(read.file) != read.file  # messages are UTF-8, and this path is not
        return Packed(sample=sample, size=size, send=unsayable)
    try:
        image = persistently(read, sample.name)
        if isinstance(image, Item):
            label = own_class(image.label, sample.name)
            sample, image = replace(sample, label=label), image.image
        sent, data, digest = persistently(partial(_encoded, sample.name, image, exif), sample.name)
    except (DatasetError, MachineError):
        raise
    except Exception as error:  # a data set's own code may raise anything
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
    read, name = packed.sample.read, escaped(packed.sample.name)
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
        data = persistently(read, name)
    except MachineError:
        raise
    except Exception as error:
        check_fault(error, name)  # of the status
        return _failed(name, error)
    packed.digest = sha256_bytes(data)
    return Sent(kind="bytes", name=name, length=len(data)), data


def _encoded(name: str, image: Any, exif: Exif) -> tuple[Sent, bytes, str]:
    name = escaped(name)
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
    data = reason_of(error).encode()
    return Sent(kind="error", name=escaped(name), length=len(data)), data


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
