"""Computes features of photos that the engine's GPU also prepares."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.inference.gpu.jpeg import JpegFile, plain_jpeg
from zoo.inference.gpu.preparer import Photo, Preparer
from zoo.inference.preprocess import as_photo, check_shape, fit, read_file
from zoo.runtime.base import DeviceSession, Features, Running
from zoo.runtime.cuda import DeviceBatch
from zoo.util.errors import RunError

if TYPE_CHECKING:
    from zoo.schema.manifest import Preprocess

_SPLIT_FROM = 128
"""Rows of one array from which it is copied in pieces."""

_FIRST = 1 / 2
"""Share of a batch that is copied first: the engine waits for that copy, and then runs while the
rest is copied. With pieces of two sizes, TensorRT takes three times as long to enqueue each."""


def features_of(
    photos: Sequence[Any],
    session: DeviceSession,
    preparer: Preparer,
    preprocess: Preprocess,
    width: int,
) -> Features:
    """Prepares photos of any sizes on the engine's GPU and returns their features.

    Args:
        photos: Paths, encoded bytes, Pillow images, or pixels ``(H, W, 3)`` or ``(H, W)`` uint8;
            or one array of pixels, ``(N, H, W, 3)``. At least one photo.
        session: The engine.
        preparer: The preparer of the engine's batches.
        preprocess: The engine's preprocessing.
        width: Number of features per image.

    Returns:
        ``(N, width)`` float32.

    Raises:
        RunError: A photo can't be read, or an array has an unsupported shape or type.
    """
    found: Features = np.empty((len(photos), width), np.float32)
    running: deque[tuple[slice, Running]] = deque()
    with session.pipeline() as pipeline:
        for piece in _pieces(photos, preparer.rows):
            images = _prepare(photos[piece], preparer, preprocess)
            running.append((piece, pipeline.begin_on_device(images)))
            if len(running) > 1:
                _fetch(*running.popleft(), found)
            else:
                found.fill(0)  # the system gives memory as it is written, while the engine runs
        while running:
            _fetch(*running.popleft(), found)
    return found


def _fetch(piece: slice, running: Running, found: Features) -> None:
    running.features(into=found[piece])


def _pieces(photos: Sequence[Any], most: int) -> Iterator[slice]:
    """Yields what is prepared together; of a large array, one piece is copied as another runs."""
    rows = min(most, len(photos))
    sizes: Iterator[int] = repeat(rows)
    if isinstance(photos, np.ndarray) and len(photos) >= _SPLIT_FROM:
        first = math.ceil(_FIRST * rows)
        sizes = chain([first, rows - first], repeat(rows))
    start = 0
    while start < len(photos):
        size = next(sizes)
        yield slice(start, start + size)
        start += size


def _prepare(photos: Sequence[Any], preparer: Preparer, preprocess: Preprocess) -> DeviceBatch:
    if isinstance(photos, np.ndarray):
        check_shape(photos.shape[1:])
        return preparer.prepare_stack(np.ascontiguousarray(photos))
    jpegs = preparer.decoder is not None
    result = preparer.prepare(
        [_photo(photo, row, preprocess, jpegs=jpegs) for row, photo in enumerate(photos)],
        len(photos),
    )
    for number, reason in result.failed.items():
        photo = photos[number]
        raise RunError(f"{photo}: {reason}" if isinstance(photo, (str, Path)) else reason)
    return result.images


def _photo(photo: Any, row: int, preprocess: Preprocess, *, jpegs: bool) -> Photo:
    """Returns a photo for the preparer; files that Pillow decodes are already resized."""
    if isinstance(photo, (str, Path, bytes)):
        data = photo if isinstance(photo, bytes) else read_file(Path(photo))
        if jpegs and (size := plain_jpeg(data)):
            return Photo(source=JpegFile(data, size), row=row)
        return Photo(source=fit(as_photo(photo), preprocess), row=row, fitted=True)
    if isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.shape[2:] == (3,):
        check_shape(photo.shape)
        return Photo(source=photo, row=row)
    return Photo(source=np.asarray(as_photo(photo)), row=row)
