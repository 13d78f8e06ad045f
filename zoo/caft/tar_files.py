"""Tars as files: their paths, whether a file is one, and its members up to its real end."""

from __future__ import annotations

import glob
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FAILURES = (
    tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError, RecursionError,
    OverflowError,
)  # fmt: skip
"""What reading a damaged tar raises."""

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
_AT_ONCE = 1 << 20


_HEADERS = frozenset(
    {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE}
    | {tarfile.SOLARIS_XHDTYPE}
)
_LARGEST_HEADER = 1 << 20


class Member(tarfile.TarInfo):
    """A member of a tar whose headers are bounded: tarfile reads them whole, whatever their size.

    Raises:
        tarfile.ReadError: A header has more than a megabyte.
    """

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in _HEADERS and self.size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def expand(pattern: str) -> list[str]:
    """Returns the paths that ``shard-{000..012}.tar``, ``{a,b}.tar`` or ``*.tar`` stands for."""
    if match := _RANGE.search(pattern):
        first, last = match.groups()
        numbers = range(int(first), int(last) + 1)
        words = [f"{number:0{len(first)}d}" for number in numbers]
    elif match := _CHOICE.search(pattern):
        words = match.group(1).split(",")
    elif glob.has_magic(pattern) and not os.path.exists(pattern):
        return sorted(glob.glob(pattern)) or [pattern]
    else:
        return [pattern]
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [path for word in words for path in expand(f"{before}{word}{after}")]


def is_tar(path: Path) -> bool:
    """Whether a file is a tar by its content."""
    try:
        with tarfile.open(path, tarinfo=Member):
            return True
    except FAILURES:
        return False


def is_plain(path: Path) -> bool:
    """Whether a file is a tar that is not compressed."""
    try:
        with tarfile.open(path, "r:", tarinfo=Member):
            return True
    except FAILURES:
        return False


def members_of(
    tar: tarfile.TarFile, appended: Callable[[tarfile.TarInfo], None] = lambda member: None
) -> Iterator[tarfile.TarInfo]:
    """Yields the members of a tar, and of archives appended to it, as ``tar --ignore-zeros`` does.

    Args:
        tar: The tar.
        appended: Called with the first member of each archive after the end of the first.

    Raises:
        tarfile.ReadError: It is cut off or damaged, or something else follows its end.
    """
    ended = False
    while True:
        while (member := tar.next()) is not None:
            if ended:
                appended(member)
                ended = False
            yield member
            tar.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps all of them
        # tarfile mistakes a broken header for the end. A complete tar ends with a block of zeros.
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no end marker at byte {tar.offset:,}")
        tar.offset += tarfile.BLOCKSIZE
        skipped = _skip_zeros(tar)
        if skipped is None:
            return
        tar.offset += skipped
        tar.fileobj.seek(tar.offset)
        ended = True


def _skip_zeros(tar: tarfile.TarFile) -> int | None:
    """Returns the number of blocks of zeros that follow, in bytes; None if nothing else follows."""
    skipped = 0
    assert tar.fileobj is not None
    while data := tar.fileobj.read(_AT_ONCE):
        rest = data.lstrip(b"\0")
        if rest:
            return skipped + (len(data) - len(rest)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        skipped += len(data)
    return None


def read_on(tar: tarfile.TarFile) -> bool:
    """Reads on in a tar's stream; returns whether there was something to read."""
    assert tar.fileobj is not None
    return bool(tar.fileobj.read(1 << 20))
