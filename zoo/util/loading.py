"""Reads files of others: only regular ones, and JSON and TOML within limits of size and depth.

The standard library's parsers accept whatever fits in memory: nesting that overflows the stack, and
keys that take minutes. What exceeds a limit here is a ``ValueError``, as a syntax error is.
"""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

from zoo.util.files import open_regular
from zoo.util.toml import toml

DEEPEST = 100
"""Levels of nesting of JSON and TOML."""

LARGEST_JSON = 64 << 20
"""Bytes of JSON."""

LARGEST_TOML = 4 << 20
"""Bytes of TOML; a manifest has about a thousand."""

LARGEST_FILE = 4 << 30
"""Bytes of a file that is read whole."""

LARGEST_PHOTO = 1 << 30
"""Bytes of a photo's file: as many as the most pixels that Pillow decodes take uncompressed."""

LONGEST = 100
"""Times that a photo's longer side may be its shorter one, which is resized to the network's."""

_LARGEST_INTEGER = 1 << 64
_DOTTED = re.compile(r"(?<![\w\"'-])(?:[\w\"'-]+[ \t]*\.[ \t]*){32}")
"""A key of many parts: the parser's time grows with their square. It begins where a word does, or
the search itself would take the square of a long word."""

_PIECE = 2**20  # bytes per read

_BYTE_ORDER_MARK = "\ufeff"

_REPEATED = re.compile(r"^[ \t]*\[", re.MULTILINE)
_MOST_TABLES = 20_000


def read_regular(path: str | Path, most: int = LARGEST_FILE) -> bytes:
    """Returns the content of a regular file.

    Args:
        path: The file. Pipes, devices and sockets are refused before anything waits for them.
        most: Bytes that it may have.

    Raises:
        OSError: It can't be read, is no regular file, or is too large.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            reason = f"it has {size:,} bytes; at most {most:,} are read"
            raise OSError(errno.EFBIG, reason, str(path))
        # Not all at once: as much memory as may be read would be reserved.
        pieces, left = [], most
        while left > 0 and (piece := stream.read(min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_text(path: str | Path, most: int = LARGEST_FILE) -> str:
    """Returns the content of a regular file of UTF-8 text; see :func:`read_regular`.

    Raises:
        OSError: See there.
        UnicodeDecodeError: It is not UTF-8.
    """
    return read_regular(path, most).decode("utf-8").replace("\r\n", "\n")


def parse_json(data: str | bytes, *, most: int = LARGEST_JSON, strict: bool = True) -> Any:
    """Parses JSON.

    Args:
        data: The text; bytes are UTF-8.
        most: Bytes or characters that it may have.
        strict: Whether control characters in strings are errors.

    Raises:
        ValueError: It is not JSON, or exceeds a limit.
    """
    if len(data) > most:
        raise ValueError(f"{len(data):,} bytes of JSON; at most {most:,} are read")
    try:
        value = json.loads(data, strict=strict)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    if isinstance(data, bytes):
        opened = data.count(b"[") + data.count(b"{")
    else:
        opened = data.count("[") + data.count("{")
    if opened > DEEPEST:
        _check_depth(value)
    return value


def parse_toml(text: str) -> Any:
    """Parses TOML.

    Raises:
        ValueError: It is not TOML, or exceeds a limit.
    """
    if len(text) > LARGEST_TOML:
        raise ValueError(f"{len(text):,} characters of TOML; at most {LARGEST_TOML:,} are read")
    if _DOTTED.search(text) or len(_REPEATED.findall(text)) > _MOST_TABLES:
        raise ValueError("it has keys of too many parts, or too many tables")
    if text.startswith(_BYTE_ORDER_MARK):  # the parser's message shows nothing: it is invisible
        raise ValueError("it begins with a byte order mark (BOM): save it as UTF-8 without one")
    try:
        table = toml.loads(text)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    _check_depth(table)
    return table


def read_toml(path: Path) -> Any:
    """Reads a TOML file.

    Raises:
        OSError: It can't be read, or is no regular file.
        ValueError: It is not TOML, or exceeds a limit.
    """
    return parse_toml(read_text(path, LARGEST_TOML))


def _check_depth(value: Any) -> None:
    """Checks the nesting of a parsed value, and that its integers have 64 bits.

    Raises:
        ValueError: It exceeds a limit.
    """
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below += each.values()
            elif isinstance(each, list):
                below += each
            elif isinstance(each, int) and abs(each) >= _LARGEST_INTEGER:
                raise ValueError("an integer has more than 64 bits")
        level = below
    if level:
        raise ValueError(_too_deep())


def _too_deep() -> str:
    return f"it is nested more than {DEEPEST} levels deep"
