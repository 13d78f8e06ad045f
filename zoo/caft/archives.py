"""Writes a feature cache as NumPy's ``.npz`` or a webdataset tar, some rows at a time."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.caft.files import NO_LABEL

Step = Callable[[int], object]
"""Called with a number of rows that have been written."""

_AT_ONCE = 32 << 20
"""Bytes of an array per write."""


def write_npz(cache: FeatureCache, path: Path, step: Step) -> None:
    """Writes ``features``, ``labels``, ``views``, ``names`` and ``label_names``, uncompressed.

    The same file as :func:`numpy.savez` writes, which would hold all names in memory.
    """
    views, rows = cache.views, len(cache)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "features", cache.features.dtype, cache.features.shape, _slices(cache, step))
        _add(archive, "labels", np.dtype(np.int64), (rows,), [np.repeat(cache.labels, views)])
        numbers = np.tile(np.arange(views), rows // views)
        _add(archive, "views", numbers.dtype, (rows,), [numbers])
        longest = max(len(name) for name in cache.names())
        text = np.dtype(f"<U{max(1, longest)}")
        _add(archive, "names", text, (rows,), _named(cache, text))
        labels = np.array(cache.label_names, str)
        _add(archive, "label_names", labels.dtype, labels.shape, [labels])


def write_webdataset(cache: FeatureCache, path: Path, step: Step) -> None:
    """Writes a sample per row: ``.features.npy``, ``.json``, and ``.cls`` if it has a label.

    The key is the row's number, since names may contain dots and slashes; ``.json`` has ``name``,
    ``view`` and ``label``, and ``.cls`` the class's number. The same cache makes the same bytes.
    """
    header = _npy_header(cache.features.dtype, (cache.identity.feature_dim,))
    rows = iter(range(len(cache)))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in cache.names():
            for view in range(cache.views):
                row = next(rows)
                number = int(cache.labels[row // cache.views])
                label = None if number == NO_LABEL else cache.label_names[number]
                facts = {"name": name, "view": view, "label": label}
                key = f"{row:09d}"
                _put(archive, f"{key}.features.npy", header + cache.features[row].tobytes())
                _put(archive, f"{key}.json", json.dumps(facts, ensure_ascii=False).encode())
                if label is not None:
                    _put(archive, f"{key}.cls", str(number).encode())
            step(cache.views)


def _put(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
    archive.members = []  # type: ignore[attr-defined]  # it would keep a record of each file


def _add(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    parts: Iterable[npt.NDArray[Any]],
) -> None:
    member = zipfile.ZipInfo(f"{name}.npy")  # of 1980, so that the bytes do not depend on the time
    with archive.open(member, "w", force_zip64=True) as file:
        file.write(_npy_header(dtype, shape))
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data.cast("B") if part.size else b"")


def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def _slices(cache: FeatureCache, step: Step) -> Iterator[npt.NDArray[Any]]:
    count = max(1, _AT_ONCE // (cache.features.itemsize * cache.identity.feature_dim))
    for start in range(0, len(cache), count):
        part = cache.features[start : start + count]
        yield part
        step(len(part))


def _named(cache: FeatureCache, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    step = max(1, _AT_ONCE // (dtype.itemsize * cache.views))
    part: list[str] = []
    for name in cache.names():
        part += [name] * cache.views
        if len(part) >= step * cache.views:
            yield np.array(part, dtype)
            part = []
    if part:
        yield np.array(part, dtype)
