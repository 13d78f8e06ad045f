"""The files of a feature cache while a pass appends to them: the arrays first, the log last."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.arrays import open_arrays
from zoo.caft.card import Identity
from zoo.caft.files import LOG, own
from zoo.caft.growing import GrowingArray
from zoo.util.errors import CacheError

_WRITTEN_BACK = 128 << 20
"""Bytes of features after which the system is told to write them to the disk, while the pass goes
on. Otherwise the end of the pass waits for a gigabyte of them."""


class CacheFiles:
    """The arrays and the log of a cache; open while something is appended.

    Args:
        folder: The cache's folder.
        identity: The engine and the settings that make the rows.
        end: Length of the log's complete lines in bytes.
    """

    def __init__(self, folder: Path, identity: Identity, end: int) -> None:
        self._folder, self._identity, self._end = folder, identity, end
        self._arrays: tuple[GrowingArray, ...] | None = None
        self._log: int | None = None
        self._waiting = 0
        """Bytes of features that may not be on the disk."""
        self._writing_back: threading.Thread | None = None
        self._writer: ThreadPoolExecutor | None = None

    @property
    def are_open(self) -> bool:
        """Whether they are open."""
        return self._arrays is not None

    def open(self, samples: int) -> None:
        """Opens them for writing and cuts off what a killed pass left beyond so many samples."""
        self._log = os.open(own(self._folder / LOG), os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(self._log, self._end)
        os.lseek(self._log, self._end, os.SEEK_SET)
        self._arrays = open_arrays(self._folder, self._identity, samples)

    @property
    def have_grown(self) -> bool:
        """Whether somebody else has appended to the log, on a disk without locks."""
        try:
            return os.stat(self._folder / LOG).st_size > self._end
        except FileNotFoundError:
            return False

    def check_alone(self) -> None:
        """Checks that nobody else has appended to the log.

        Raises:
            CacheError: Another process writes to the cache.
        """
        assert self._log is not None
        if os.fstat(self._log).st_size != self._end:
            raise CacheError(
                f"another process is writing {self._folder}: {LOG} has grown",
                hint="this disk has no locks: wait until the other pass finishes, or stop it",
            )

    @contextmanager
    def writing(self, features: npt.NDArray[Any]) -> Iterator[None]:
        """Appends the features of a batch, in another thread, which the end waits for.

        They count once the rest of the batch was appended. A megabyte of them takes as long as all
        that a pass has to do for their log, and the thread has no need of the GIL.

        Args:
            features: ``(samples * views, feature_dim)`` in the cache's data type.

        Raises:
            OSError: They can't be written.
        """
        assert self._arrays is not None
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, "write")
        written = self._writer.submit(self._arrays[0].append, features)
        try:
            yield
        finally:
            wait([written])
        written.result()
        self._waiting += features.nbytes
        if self._waiting >= _WRITTEN_BACK:
            self._write_back(self._arrays[0].path)

    def append(
        self,
        labels: npt.NDArray[np.int64],
        hashes: npt.NDArray[np.uint8],
        sums: npt.NDArray[np.uint32],
        lines: bytes,
    ) -> None:
        """Appends the rest of a batch, which counts then: the log comes last, in one write.

        Args:
            labels: ``(samples,)``.
            hashes: ``(samples, 32)``.
            sums: ``(samples,)``, :func:`zoo.caft.files.sums_of` the features.
            lines: The lines of the log, of skipped samples too.
        """
        assert self._arrays is not None
        assert self._log is not None
        parts: tuple[npt.NDArray[Any], ...] = labels, hashes, sums
        for array, rows in zip(self._arrays[1:], parts, strict=True):
            array.append(rows)
        self._end += len(lines)
        _write(self._log, lines)

    def cut(self, samples: int) -> None:
        """Cuts the arrays, which are closed, to so many samples."""
        self._arrays = open_arrays(self._folder, self._identity, samples)
        self.close(sync=True)

    def close(self, *, sync: bool) -> None:
        """Closes them.

        Args:
            sync: Whether to wait until the data is on the disk.
        """
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None
        if self._writing_back is not None:
            self._writing_back.join()
            self._writing_back = None
        arrays, self._arrays = self._arrays or (), None
        for array in arrays:
            array.close(sync=sync)
        log, self._log = self._log, None
        if log is not None:
            if sync:
                os.fsync(log)
            os.close(log)

    def _write_back(self, path: Path) -> None:
        """Has a thread wait for the disk, unless one does already."""
        if self._writing_back is None or not self._writing_back.is_alive():
            self._waiting = 0
            self._writing_back = threading.Thread(
                target=_on_disk, args=(path,), name="write back", daemon=True
            )
            self._writing_back.start()


def _on_disk(path: Path) -> None:
    """Waits until a file is on the disk.

    What goes wrong is told again when the file is synchronised at the end: the system tells it once
    for every descriptor, and this one is another.
    """
    with suppress(OSError):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(file)
        finally:
            os.close(file)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
