"""What a file is, in words, for messages about a file of another kind than was expected."""

from __future__ import annotations

from pathlib import Path

_STARTS = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PAR1", "a Parquet table"),
    (b"ARROW1", "an Arrow table"),
    (b"\x89HDF", "an HDF5 file"),
)
_AT = 257  # byte of the word in a tar's first header
_READ = 4096  # bytes that are looked at


def kind_of_file(path: str | Path) -> str:
    """Returns what a path is, as words that follow "is": ``a JPEG image``, ``empty``, ``a folder``.

    Whoever calls has met an error already, so a file that can't be read is ``unreadable``.
    """
    path = Path(path)
    if path.is_dir():
        return "a folder"
    if not path.is_file():  # a pipe would block
        return "no regular file"
    try:
        with path.open("rb") as file:
            return kind_of_data(file.read(_READ))
    except OSError:
        return "unreadable"


def kind_of_data(start: bytes) -> str:
    """Returns what begins with some bytes, in the words of :func:`kind_of_file`."""
    if not start:
        return "empty"
    for beginning, words in _STARTS:
        if start.startswith(beginning):
            return words
    if start[_AT : _AT + 5] == b"ustar":
        return "a tar"
    return _kind_of_text(start)


def _kind_of_text(start: bytes) -> str:
    if any(byte < 0x20 and byte not in b"\t\n\f\r\x1b" for byte in start):
        return "binary data of another kind, or cut off"
    try:
        start.decode()
    except UnicodeDecodeError as error:
        if error.end < len(start):  # else a character may be cut off
            return "text that is not UTF-8"
    return "text"
