"""Reads files for the GPU's JPEG decoder in other processes (:mod:`zoo.caft.read_process`).

A photo that the GPU decodes costs the host next to nothing but its file: opening, reading and
hashing it, each of which gives up the GIL. A few threads that hand the GIL around for every file
prepare a fraction of the photos that the GPU could take, so that files are read in other processes,
several per request. They read into shared memory, which is used again, so that nothing is copied.
"""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.caft import read_process
from zoo.caft.file_read import FileRead, Stamp
from zoo.caft.mapped_memory import MappedPieces
from zoo.caft.read_process import Found
from zoo.inference.gpu.jpeg import JpegFile, JpegSize
from zoo.inference.preprocess import Exif


class JpegContent(NamedTuple):
    """A file that was read.

    Attributes:
        jpeg: The file, with its content, read-only.
        sha256: Digest of its content.
        stamp: The file's stamp, None if it has none.
    """

    jpeg: JpegFile
    sha256: str
    stamp: Stamp | None


class FileReader:
    """Reads files in another process; used by one thread at a time.

    Args:
        exif: Whether the EXIF orientation of photos is applied.
    """

    def __init__(self, exif: Exif) -> None:
        ours, theirs = socket.socketpair()
        self._socket: socket.socket | None = ours
        with theirs:
            paths = os.pathsep.join(path for path in sys.path if path)
            self._process = subprocess.Popen(
                [sys.executable, "-m", read_process.__name__, str(theirs.fileno()), exif],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # if EXIF needs NumPy, it computes nothing: it need not start a thread for each core
                env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C goes to the parent only
            )
        self._connection = Connection(os.dup(ours.fileno()))
        self._pieces = MappedPieces(ours)

    def wait(self) -> None:
        """Waits until the process has started; nothing needs to."""
        with suppress(OSError, EOFError):
            self._connection.recv()

    def read(self, files: Sequence[FileRead]) -> list[JpegContent | None]:
        """Reads files.

        Args:
            files: What to read of which files.

        Returns:
            The content of each that the GPU decodes like Pillow; None for those that it does not,
            that can't be read, or that the process died of.
        """
        if self._socket is None:
            return [None] * len(files)
        try:
            asked = [(file.file, file.start, file.size, file.unchanged) for file in files]
            self._connection.send((self._pieces.free(), asked))
            answers: list[Found | None]
            answers, number, fresh = self._connection.recv()
            shared = self._pieces.filled(number, fresh=fresh)
        except (OSError, EOFError, ValueError):  # it was killed: its files are read here
            self.close()
            return [None] * len(files)
        address = shared.__array_interface__["data"][0]
        return [None if found is None else _content(found, shared, address) for found in answers]

    def kill(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process; contents that were read stay valid."""
        if self._socket is not None:
            self._connection.close()
            self._socket.close()
            self._socket = None
            self._process.kill()
            self._process.wait()
            self._pieces.close()


class FileReaders:
    """Processes that read files; they start in the background.

    Args:
        exif: Whether the EXIF orientation of photos is applied.
        count: Number of processes.
    """

    def __init__(self, exif: Exif, count: int) -> None:
        self._exif, self._count = exif, count
        self._idle: queue.SimpleQueue[FileReader] = queue.SimpleQueue()
        self._opened: list[FileReader] = []
        self._ready = threading.Event()
        self._closed = False
        self._starting = threading.Thread(target=self._start, name="readers", daemon=True)
        self._starting.start()

    def read(self, files: Sequence[FileRead]) -> list[JpegContent | None]:
        """Reads files, in several threads; see :meth:`FileReader.read`.

        Until a process has started, all are left to the caller.
        """
        if not self._ready.is_set():
            return [None] * len(files)
        reader = self._idle.get()
        try:
            return reader.read(files)
        finally:
            self._idle.put(reader)

    def close(self) -> None:
        """Ends the processes, once no thread calls :meth:`read` any more."""
        self._closed = True
        for reader in self._opened:
            reader.kill()  # those that have not begun need not be waited for
        self._starting.join()
        for reader in self._opened:
            reader.close()

    def _start(self) -> None:
        with suppress(OSError):  # without processes the files are read in threads
            while not self._closed and len(self._opened) < self._count:
                self._opened.append(FileReader(self._exif))
        for reader in self._opened:
            if self._closed:
                return
            reader.wait()
            self._idle.put(reader)
            self._ready.set()


def _content(found: Found, shared: npt.NDArray[np.uint8], address: int) -> JpegContent:
    start, end, width, height, sha256, stamp = found
    file = JpegFile(shared[start:end], JpegSize(width, height), address + start)
    return JpegContent(file, sha256, stamp)
