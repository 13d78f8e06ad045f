"""An ``.npy`` file that rows can be appended to, and that can be truncated to any row."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_HEADER = 128
"""Bytes before the first row. The header is padded so that any row count fits in place."""


class GrowingArray:
    """A plain ``.npy`` file of version 1.0 that rows are appended to.

    The header holds the number of rows as of the last :meth:`close`. Until then the caller keeps
    count and passes the count when it opens the file again: rows beyond it are left over from a
    killed process and are cut off.

    Args:
        path: The file.
        dtype: Type of an element.
        row: Shape of a row.
        rows: Number of valid rows in the file.

    Raises:
        ValueError: The file has fewer rows than that.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, row: tuple[int, ...], rows: int) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        self.row = row
        self.rows = rows
        self._size = self.dtype.itemsize * int(np.prod(row, dtype=np.int64))
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self.check(path, dtype, row, rows)
            os.ftruncate(self._file, self._end(rows))
            self._write_header()
        except BaseException:
            os.close(self._file)
            raise

    @staticmethod
    def check(path: Path, dtype: npt.DTypeLike, row: tuple[int, ...], rows: int) -> None:
        """Checks that a file has a number of rows, and a header that says of what kind they are.

        The header's number of rows may be that before a killed pass.

        Raises:
            ValueError: It has fewer, is missing, or has another header.
        """
        size = np.dtype(dtype).itemsize * int(np.prod(row, dtype=np.int64))
        if rows and not (path.exists() and path.stat().st_size >= _HEADER + rows * size):
            raise ValueError(f"{path.name} has fewer than {rows:,} rows")
        if rows and not _has_header(path, np.dtype(dtype), row):
            raise ValueError(f"the header of {path.name} is not that of its rows")

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Writes rows after the last one."""
        data = np.ascontiguousarray(rows, self.dtype)
        if data.shape[1:] != self.row:
            raise ValueError(f"{self.path.name}: rows have shape {data.shape[1:]}, not {self.row}")
        _write_all(
            self._file, memoryview(data.reshape(-1).view(np.uint8).data), self._end(self.rows)
        )
        self.rows += len(data)

    def close(self, *, sync: bool = False) -> None:
        """Updates the number of rows in the header and closes the file."""
        try:
            self._write_header()
            if sync:
                os.fsync(self._file)
        finally:
            os.close(self._file)

    def _end(self, rows: int) -> int:
        return _HEADER + rows * self._size

    def _write_header(self) -> None:
        text = repr(
            {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.row)}
        )
        magic = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
        header = magic + text.encode().ljust(_HEADER - 11) + b"\n"
        assert len(header) == _HEADER
        _write_all(self._file, memoryview(header), 0)


def _has_header(path: Path, dtype: np.dtype[Any], row: tuple[int, ...]) -> bool:
    """Whether a file's header has the type and shape of its rows."""
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                return False
            shape, fortran, stored = np.lib.format.read_array_header_1_0(file)
            return (shape[1:], fortran, stored, file.tell()) == (row, False, dtype, _HEADER)
    except Exception:  # a damaged header can make NumPy raise anything
        return False


def mapped(path: Path, dtype: npt.DTypeLike, row: tuple[int, ...], rows: int) -> npt.NDArray[Any]:
    """Maps the first rows of a file, whatever its header says; a killed process leaves that stale.

    Raises:
        ValueError: The file has fewer rows than that.
    """
    if not rows:
        return np.empty((0, *row), dtype)
    return np.memmap(path, dtype, "r", offset=_HEADER, shape=(rows, *row))


def _write_all(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
