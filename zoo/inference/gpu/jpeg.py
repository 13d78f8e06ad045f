"""Identifies JPEG files that the GPU decodes like Pillow.

The hardware decoder accepts files that it decodes incorrectly: it ignores non-standard colour
transforms and invents the missing part of a truncated file. Files with unusual features go to
Pillow, which decodes them or reports what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zoo.util.loading import LONGEST

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_START, _END = b"\xff\xd8", b"\xff\xd9"
_BASELINE, _SCAN, _ADOBE = 0xC0, 0xDA, 0xEE
_SKIPPED = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)} - {_ADOBE})
"""Huffman and quantisation tables, restart interval, comments, and application segments."""

_YCBCR = 1  # the colour transform in an Adobe segment
_COMPONENTS = {
    bytes([1, 0x11]): 1,
    bytes([1, 0x11, 2, 0x11, 3, 0x11]): 3,
    bytes([1, 0x21, 2, 0x11, 3, 0x11]): 3,
    bytes([1, 0x22, 2, 0x11, 3, 0x11]): 3,
}
"""IDs and sampling factors of the components: greyscale, 4:4:4, 4:2:2, 4:2:0."""

_MOST_PIXELS = 89_478_485
"""Pillow warns about larger images: a quarter of a gigabyte of RGB."""


class JpegSize(NamedTuple):
    """Size in pixels of the image in a JPEG file."""

    width: int
    height: int


class JpegFile(NamedTuple):
    """A JPEG file that the GPU decodes: one that :func:`plain_jpeg` accepts.

    Attributes:
        data: Its content.
        size: Size of its image.
        address: Where the content begins in this process's memory, if that is known: to ask an
            array takes microseconds.
    """

    data: bytes | npt.NDArray[np.uint8]
    size: JpegSize
    address: int | None = None


class JpegHeaders(NamedTuple):
    """What comes before the scan of a JPEG file that the GPU decodes.

    Attributes:
        size: Size of the image.
        end: Offset of the first byte behind the other segments, where the scan begins.
    """

    size: JpegSize
    end: int


def plain_jpeg(data: bytes | memoryview) -> JpegSize | None:
    """Returns the size of a JPEG file that the GPU decodes like Pillow, None for other files.

    Such a file is baseline (Huffman, 8 bits, one scan), greyscale or YCbCr with common subsampling,
    and is not truncated. Damage within the scan is not detected.

    Args:
        data: Content of the file.
    """
    headers = plain_headers(data)
    return None if headers is None else headers.size


def plain_headers(data: bytes | memoryview) -> JpegHeaders | None:
    """Returns what :func:`plain_jpeg` has read of a file that it accepts."""
    if data[:2] != _START or data[-2:] != _END:
        return None
    try:
        return _headers(data)
    except IndexError:  # truncated within them
        return None


def _headers(data: bytes | memoryview) -> JpegHeaders | None:
    """Reads segments up to the scan.

    Raises:
        IndexError: The data ends before that.
    """
    place, frame = 2, None
    while data[place] == 0xFF:
        marker = data[place + 1]
        length = data[place + 2] << 8 | data[place + 3]
        if marker in _SKIPPED and length >= 2:  # the most common segments: skip them fast
            place += 2 + length
            continue
        body = data[place + 4 : place + 2 + min(length, 32)]
        if marker == _SCAN:
            plain = frame is not None and body[0] == frame[1]
            return JpegHeaders(frame[0], place) if frame and plain else None
        if marker == _BASELINE and frame is None:
            frame = _frame(body)
        elif marker != _ADOBE or _other_colours(body):  # a second frame, too
            return None
        place += 2 + length
    return None


def _frame(body: bytes | memoryview) -> tuple[JpegSize, int] | None:
    """Returns the size and the number of components of a frame header."""
    if len(body) < 6 or body[0] != 8:
        return None
    height, width = body[1] << 8 | body[2], body[3] << 8 | body[4]
    table = body[6:]
    components = b"".join([table[start : start + 2] for start in range(0, len(table), 3)])
    known = _COMPONENTS.get(components) == body[5]
    shorter, longer = min(width, height), max(width, height)
    if not known or not 0 < longer <= LONGEST * shorter or width * height > _MOST_PIXELS:
        return None
    return JpegSize(width, height), body[5]


def _other_colours(body: bytes | memoryview) -> bool:
    """Whether a segment is an Adobe segment with a colour transform other than YCbCr."""
    return body[:5] == b"Adobe" and body[11:12] != bytes([_YCBCR])
