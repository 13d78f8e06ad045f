"""Zstandard, from the standard library of Python 3.14 or its backport (the extra ``chunks``)."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from types import ModuleType

from zoo.util.errors import MissingPackageError

INSTALL = "pip install 'caft-zoo[chunks]'"


def is_installed() -> bool:
    """Returns whether frames can be compressed and decompressed."""
    if sys.version_info >= (3, 14):
        return find_spec("compression.zstd") is not None and find_spec("_zstd") is not None
    return find_spec("backports") is not None and find_spec("backports.zstd") is not None


SMALLEST_AS_IS, LARGEST_AS_IS = 256, 65_791
"""Sizes in bytes of what :func:`as_is` accepts: others have a header of another length."""

_HEAD = 10


def compress(data: bytes, level: int) -> bytes:
    """Returns data as one frame."""
    packed: bytes = _zstd().compress(data, level)
    return packed


def as_is(data: bytes) -> bytes:
    """Returns data as one frame that contains it uncompressed.

    Its content is read without a decompressor, whose start takes longer than a few KB.

    Args:
        data: From :data:`SMALLEST_AS_IS` to :data:`LARGEST_AS_IS` bytes.
    """
    return _head(len(data)) + data


def content(frame: memoryview, size: int) -> bytes | memoryview:
    """Returns the content of one frame, without a copy if it is uncompressed.

    Args:
        frame: The frame.
        size: Size of the content in bytes; no more is decompressed.

    Raises:
        ValueError: The bytes are not one frame, or its content has another size.
    """
    if len(frame) == size + _HEAD and frame[:_HEAD] == _head(size):
        return frame[_HEAD:]
    data = decompress(frame, size)
    if len(data) != size:
        raise ValueError(f"it has {len(data):,} bytes instead of {size:,}")
    return data


def _head(size: int) -> bytes:
    """Returns what precedes the content of a frame of one uncompressed block (RFC 8878).

    Empty if sizes in bytes are not written like this.
    """
    if not SMALLEST_AS_IS <= size <= LARGEST_AS_IS:
        return b""
    frame = (size - SMALLEST_AS_IS).to_bytes(2, "little")  # one segment, its size in two bytes
    block = (size << 3 | 1).to_bytes(3, "little")  # the last block, uncompressed
    return b"\x28\xb5\x2f\xfd\x60" + frame + block


def decompress(frame: bytes | memoryview, limit: int) -> bytes:
    """Returns the content of one frame.

    Args:
        frame: The frame.
        limit: Maximum size of the content in bytes; no more is decompressed.

    Raises:
        ValueError: The bytes are not one frame, or its content is larger.
    """
    zstd = _zstd()
    reader = zstd.ZstdDecompressor()
    try:
        data: bytes = reader.decompress(frame, limit + 1)
    except zstd.ZstdError as error:
        raise ValueError(str(error)) from error
    if len(data) > limit or not reader.eof or reader.unused_data:
        raise ValueError(f"not one frame of at most {limit:,} bytes")
    return data


@cache
def _zstd() -> ModuleType:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:  # another package may have a folder of the same name
        raise MissingPackageError("zstd is not installed", hint=INSTALL) from error
    module: ModuleType = zstd
    return module
