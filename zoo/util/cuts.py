"""Content-defined chunks: cuts depend on the bytes around them, not on their position."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from zoo.util.errors import MissingPackageError
from zoo.util.zstd import INSTALL

AVERAGE = 16 << 10
"""Aimed size of a chunk in bytes. All who cut must agree, or they find nothing in common."""

SMALLEST, LARGEST = AVERAGE // 4, AVERAGE * 4


def can_cut() -> bool:
    """Returns whether the package that cuts is installed."""
    return find_spec("pyfastcdc") is not None


def cut(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields offset and bytes of each chunk of a file.

    Raises:
        MissingPackageError: pyfastcdc is not installed.
    """
    try:
        from pyfastcdc import FastCDC
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{path}: pyfastcdc is not installed, so it can't be cut into chunks", hint=INSTALL
        ) from error
    if path.stat().st_size == 0:  # it can't be mapped into memory
        return
    chunker = FastCDC(AVERAGE, min_size=SMALLEST, max_size=LARGEST)
    for chunk in chunker.cut_file(path):
        yield chunk.offset, bytes(chunk.data)
