"""Checks the format of files that a worker returned, before anything reads or stores them.

Only headers are read, so a check costs the same for a file of any size. A file that passes can be
opened without running code (no pickles) and without more memory than it has bytes: arrays are not
compressed, and their shapes match their sizes.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from builders.photos.edge import EDGE_PICTURES
from zoo.util.errors import JobError

_GOLDEN = ("edge_features", "features", "images")
_LABELLED = ("features", "images", "labels")
_LARGEST_HEADER = 10_000  # NumPy's own limit
_GRAPH = 7  # field number of ModelProto.graph
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


class FormatError(ValueError):
    """A file does not have the format that its kind must have."""


_UNREADABLE = (
    ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError,
    OverflowError,
)  # fmt: skip
"""What a damaged file makes its readers raise."""


@dataclass(frozen=True, kw_only=True)
class Array:
    """The header of an array.

    Attributes:
        kind: NumPy's letter for its numbers: ``f``, ``i`` or ``u``.
        shape: Its shape.
    """

    kind: str
    shape: tuple[int, ...]


def check_formats(named: Mapping[str, str], folder: Path) -> None:
    """Checks each returned file whose kind has a checked format.

    Args:
        named: Name of each file to its kind.
        folder: Where they are, out of the worker's reach.

    Raises:
        JobError: A file does not have the format of its kind.
    """
    for name, kind in named.items():
        if (check := _CHECKS.get(kind)) is None:
            continue
        try:
            check(folder / name)
        except _UNREADABLE as error:
            raise JobError(
                f"a worker returned {name} ({kind}), which can't be read: {error}",
                hint="the worker is broken, or someone tampered with it: nothing that it returned "
                "was stored",
            ) from error


def check_golden(path: Path) -> None:
    """Checks a stored golden file; those of earlier versions have no edge pictures.

    Raises:
        JobError: It is not a golden file.
    """
    try:
        try:
            _check_golden(path)
        except FormatError:
            _check_rows(_npz(path, _GOLDEN[1:]))
    except (FormatError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise JobError(f"its golden file can't be read: {error}") from error


def _check_golden(path: Path) -> None:
    arrays = _npz(path, _GOLDEN)
    edges = arrays.pop("edge_features")
    _check_features(edges)
    _check_rows(arrays)
    if edges.shape != (len(EDGE_PICTURES), arrays["features"].shape[1]):
        raise FormatError(f"features of edge pictures of shape {edges.shape}")


def _check_labelled(path: Path) -> None:
    _check_rows(_npz(path, _LABELLED))


def _check_features_file(path: Path) -> None:
    with path.open("rb") as file:
        _check_features(_npy(file, path.stat().st_size))


def _check_rows(arrays: Mapping[str, Array]) -> None:
    _check_features(arrays["features"])
    rows = {array.shape[0] if array.shape else 0 for array in arrays.values()}
    if len(rows) != 1 or 0 in rows:
        raise FormatError("its arrays have no rows, or different numbers of them")


def _check_features(features: Array) -> None:
    if features.kind != "f" or len(features.shape) != 2:
        raise FormatError(f"features of kind {features.kind} and shape {features.shape}")


def _npz(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    """Returns the header of each array of an uncompressed ``.npz`` with exactly these arrays."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if sorted(entry.filename for entry in archive.infolist()) != [f"{n}.npy" for n in names]:
            raise FormatError(f"it must hold the arrays {', '.join(names)} and nothing else")
        arrays = {}
        for name in names:
            entry = entries[f"{name}.npy"]
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise FormatError(f"{name} is compressed or encrypted")
            if entry.file_size > path.stat().st_size:
                raise FormatError(f"{name} is longer than the file")
            with archive.open(entry) as file:
                arrays[name] = _npy(file, entry.file_size)
    return arrays


def _npy(file: IO[bytes], size: int) -> Array:
    """Reads an array's header and compares it with the number of its bytes."""
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(file)
        if version != (1, 0):  # what NumPy writes; later versions allow headers of gigabytes
            raise FormatError(f"version {version} of .npy")
        shape, _, dtype = npy.read_array_header_1_0(file, max_header_size=_LARGEST_HEADER)
    except FormatError:
        raise
    except Exception as error:  # a damaged header can make NumPy raise anything
        raise FormatError(f"not an array: {error}") from error
    if dtype.hasobject or dtype.kind not in "fiu" or dtype.names:
        raise FormatError(f"an array of {dtype}")
    count = 1
    for length in shape:
        if length < 0:
            raise FormatError(f"shape {shape}")
        count *= length
    if count * dtype.itemsize != size - file.tell():
        raise FormatError(f"shape {shape} does not match its {size:,} bytes")
    return Array(kind=dtype.kind, shape=tuple(shape))


def _check_onnx(path: Path) -> None:
    """Walks the fields of a ``ModelProto``; its graph must be among them."""
    numbers = set()
    with path.open("rb") as file:
        for number, wire in _fields(file, path.stat().st_size):
            numbers.add((number, wire))
    if (_GRAPH, _BYTES) not in numbers:
        raise FormatError("not an ONNX model: it has no graph")


def _fields(file: IO[bytes], size: int) -> Iterator[tuple[int, int]]:
    """Yields number and wire type of each top-level field of a protocol buffer."""
    while file.tell() < size:
        number, wire = divmod(_varint(file), 8)
        if wire == _VARINT:
            _varint(file)
        elif wire in (_FIXED64, _FIXED32):
            file.seek(8 if wire == _FIXED64 else 4, os.SEEK_CUR)
        elif wire == _BYTES:
            file.seek(min(_varint(file), size + 1), os.SEEK_CUR)
        else:
            raise FormatError(f"not an ONNX model: wire type {wire}")
        if number == 0 or file.tell() > size:
            raise FormatError("not an ONNX model: it is cut off or no protocol buffer")
        yield number, wire


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        data = file.read(1)
        if not data:
            raise FormatError("not an ONNX model: it is cut off")
        byte = data[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise FormatError("not an ONNX model: a number of more than 64 bits")


_CHECKS: dict[str, Callable[[Path], None]] = {
    "golden": _check_golden,
    "labelled": _check_labelled,
    "features": _check_features_file,
    "onnx": _check_onnx,
}
