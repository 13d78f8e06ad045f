"""Zstandard, from the standard library of Python 3.14 or its backport (the extra ``chunks``)."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType

from zoo.util.errors import MissingPackageError

INSTALL = "pip install 'caft-zoo[chunks]'"


def is_installed() -> bool:
    """Returns whether frames can be compressed and decompressed."""
    if sys.version_info >= (3, 14):
        return find_spec("compression.zstd") is not None and find_spec("_zstd") is not None
    return find_spec("backports") is not None and find_spec("backports.zstd") is not None


def compress(data: bytes, level: int) -> bytes:
    """Returns data as one frame."""
    packed: bytes = _zstd().compress(data, level)
    return packed


def decompress(frame: bytes, limit: int) -> bytes:
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


def _zstd() -> ModuleType:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ModuleNotFoundError as error:
        raise MissingPackageError("zstd is not installed", hint=INSTALL) from error
    module: ModuleType = zstd
    return module
