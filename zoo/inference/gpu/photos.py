"""Photos straight to features, by an engine whose GPU prepares them, too."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.inference.gpu.jpeg import plain_jpeg
from zoo.inference.gpu.preparer import JpegFile, Photo, Preparer
from zoo.inference.preprocess import as_photo, check_shape, fit, read_file
from zoo.runtime.base import DeviceSession, Features, Running
from zoo.runtime.cuda import DeviceBatch
from zoo.util.errors import RunError

if TYPE_CHECKING:
    from zoo.schema.manifest import Preprocess


class GpuPhotos:
    """Runs photos of any sizes through an engine; from several threads one call after the other.

    Args:
        session: The engine.
        preprocess: Its preprocessing.
        rows: Rows of its largest batch.

    Raises:
        MissingPackageError: CUDA's run-time compiler is not installed.
        RunError: The GPU's memory does not suffice.
    """

    def __init__(self, session: DeviceSession, preprocess: Preprocess, rows: int) -> None:
        self._session = session
        self._preprocess = preprocess
        self._rows = rows
        self._lock = threading.Lock()
        self._preparer = Preparer(session, preprocess, rows)

    def features(self, photos: Sequence[Any]) -> Features:
        """Returns features.

        Args:
            photos: Files, their bytes, Pillow images or pixels ``(H, W, 3)`` or ``(H, W)`` uint8;
                or all pixels in one array, ``(N, H, W, 3)``.

        Returns:
            ``(N, feature_dim)`` float32.

        Raises:
            RunError: A photo can't be read, or an array has another shape or type.
        """
        results: list[Features] = []
        running: Running | None = None
        with self._lock, self._session.pipeline() as pipeline:
            for start in range(0, len(photos), self._rows):
                images = self._prepare(photos[start : start + self._rows])
                before, running = running, pipeline.begin_on_device(images)
                if before is not None:
                    results.append(before.features())
            if running is not None:
                results.append(running.features())
        return results[0] if len(results) == 1 else np.concatenate(results)

    @property
    def decoder(self) -> str | None:
        """What decodes JPEG files on the GPU, None if nothing does."""
        decoder = self._preparer.decoder
        return None if decoder is None else decoder.name

    def close(self) -> None:
        """Frees what the preparation holds."""
        with self._lock:
            self._preparer.close()

    def _prepare(self, photos: Sequence[Any]) -> DeviceBatch:
        if isinstance(photos, np.ndarray):
            check_shape(photos.shape[1:])
            return self._preparer.prepare_stack(np.ascontiguousarray(photos))
        made = self._preparer.prepare(
            [self._photo(photo, row) for row, photo in enumerate(photos)], len(photos)
        )
        for number, reason in made.failed.items():
            photo = photos[number]
            raise RunError(f"{photo}: {reason}" if isinstance(photo, (str, Path)) else reason)
        return made.images

    def _photo(self, photo: Any, row: int) -> Photo:
        """Returns a photo as the preparer takes it; files that Pillow decodes at the input size."""
        if isinstance(photo, (str, Path, bytes)):
            data = photo if isinstance(photo, bytes) else read_file(Path(photo))
            if self._preparer.decoder is not None and (size := plain_jpeg(data)):
                return Photo(source=JpegFile(data, size), row=row)
            return Photo(source=fit(as_photo(photo), self._preprocess), row=row, fitted=True)
        if isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.shape[2:] == (3,):
            check_shape(photo.shape)
            return Photo(source=photo, row=row)
        return Photo(source=np.asarray(as_photo(photo)), row=row)
