"""A process that reads files for the GPU's JPEG decoder: paths in, contents and digests out.

``python -m zoo.caft.read_process FD EXIF``; messages are pickled, and come from and go to its
parent only, a :class:`zoo.caft.file_reader.FileReader`. A pass has several, and their start is a
part of its time, so that NumPy, Pillow and pydantic are not imported unless a file needs it.
"""

from __future__ import annotations

import hashlib
import io
import os
import socket
import sys
from contextlib import closing
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from zoo.caft.file_read import FileRead, Stamp
from zoo.caft.shared_memory import FilledPieces, Piece
from zoo.inference.gpu.jpeg import JpegSize, plain_headers

if TYPE_CHECKING:
    from zoo.inference.preprocess import Exif

_EXIF = b"Exif\0\0"

Found = tuple[int, int, int, int, str, "Stamp | None"]
"""An answer about a file: start and end in the shared memory, width, height, digest and stamp.
Plain tuples, which are pickled fastest."""


def decodable(data: bytes | memoryview, exif: Exif) -> JpegSize | None:
    """Returns the size of a file that the GPU decodes like Pillow, None for other files.

    Args:
        data: Content of the file.
        exif: Whether its EXIF orientation is applied; a file that is turned is not for the GPU.
    """
    headers = plain_headers(data)
    if headers is None:
        return None
    if exif == "ignore" or _EXIF not in bytes(data[: headers.end]):
        return headers.size
    from PIL import Image

    from zoo.inference.preprocess import orientation_of

    with Image.open(io.BytesIO(data)) as photo:
        return headers.size if orientation_of(photo) == 1 else None


def serve(ours: socket.socket, exif: Exif) -> None:
    """Answers requests until the parent closes the connection."""
    with closing(Connection(os.dup(ours.fileno()))) as connection:
        connection.send(None)  # ready
        pieces = FilledPieces(ours)
        while True:
            try:
                free, request = connection.recv()
            except (EOFError, OSError):
                return
            pieces.free(free)
            piece = pieces.take()
            answers = [_read(FileRead(*file), piece, exif) for file in request]
            connection.send((answers, piece.number, piece.fresh))
            pieces.hand_over(piece)


def _read(file: FileRead, piece: Piece, exif: Exif) -> Found | None:
    """Appends a file to shared memory if the GPU decodes it."""
    start = piece.used
    try:
        data = file.into(piece.room)
        size = decodable(data, exif)
    except Exception:  # the parent reads it again, and says what is wrong
        size = None
    if size is None:
        piece.used = start
        return None
    return start, piece.used, *size, hashlib.sha256(data).hexdigest(), file.stamp


if __name__ == "__main__":
    # The module by its own name: what it pickles must be found in the parent.
    from zoo.caft import read_process

    with socket.socket(fileno=int(sys.argv[1])) as connected:
        read_process.serve(connected, sys.argv[2])  # type: ignore[arg-type]
