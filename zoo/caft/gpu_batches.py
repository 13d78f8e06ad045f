"""Batches of photos for a GPU to prepare: JPEG files stay encoded, others are decoded here."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from zoo.caft.augment import Augmentation
from zoo.caft.content import digest_of, is_preprocessed
from zoo.caft.decode import Batch, PhotoDecoder, as_preprocessed
from zoo.caft.file_read import FileRead
from zoo.caft.file_reader import FileReaders
from zoo.caft.read_process import decodable
from zoo.caft.shared_memory import AVAILABLE
from zoo.inference.gpu.jpeg import JpegFile
from zoo.inference.gpu.preparer import Photo, Preparer
from zoo.inference.preprocess import Exif
from zoo.runtime.cuda import DeviceBatch
from zoo.schema.manifest import Preprocess
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RunError

_READERS = 3
"""Most processes that read files; each reads several thousand a second."""

_AHEAD = 3
"""Batches that have been taken and not given to the engine: two in preparation, and one ready."""

_THREADS = 2
"""Up to this many workers read files themselves."""

Slots = list[tuple[Photo, ...]]
"""The photos of each sample of a batch."""


class GpuBatches:
    """The kind of batch for :class:`zoo.caft.decode.Decoder`: photos for a :class:`Preparer`.

    Args:
        preprocess: The engine's preprocessing.
        augmentation: The views of each image.
        photos: Decodes photos that the GPU does not support.
        jpegs: Whether the GPU decodes JPEG files.
        exif: Whether to apply the EXIF orientation of photos; those that need rotation are decoded
            by Pillow.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        augmentation: Augmentation,
        photos: PhotoDecoder,
        *,
        jpegs: bool,
        exif: Exif = "ignore",
    ) -> None:
        self._preprocess = preprocess
        self._augmentation = augmentation
        self._views = augmentation.views
        self._photos = photos
        self._jpegs = jpegs
        self._exif = exif
        self._readers: FileReaders | None = None
        if jpegs and AVAILABLE and photos.workers > _THREADS:
            self._readers = FileReaders(exif, min(_READERS, photos.workers))

    def new_buffer(self, samples: int) -> Slots:
        """See :meth:`zoo.caft.decode.Batches.new_buffer`."""
        return [()] * samples

    def write(self, image: Any, buffer: Slots, place: int) -> str:
        """See :meth:`zoo.caft.decode.Batches.write`."""
        row = place * self._views
        if is_preprocessed(image):
            array = as_preprocessed(image, self._preprocess, self._views).copy()
            buffer[place] = (Photo(source=array, row=row),)
            return digest_of(array)
        if self._jpegs and isinstance(image, bytes) and (size := decodable(image, self._exif)):
            digest = sha256_bytes(image)
            buffer[place] = self._slot(JpegFile(image, size), digest, row)
            return digest
        with self._photos.views(image) as (digest, pixels):
            buffer[place] = tuple(
                Photo(source=np.array(view), row=row + number, fitted=True)
                for number, view in enumerate(pixels)
            )
        return digest

    def read(self, reads: Sequence[Any], buffer: Slots, place: int) -> Sequence[str]:
        """See :meth:`zoo.caft.decode.Batches.read`."""
        files = [read for read in reads if isinstance(read, FileRead)]
        if self._readers is None or len(files) < len(reads):
            return [""] * len(reads)
        contents = self._readers.read(files)
        digests = []
        for number, (file, content) in enumerate(zip(files, contents, strict=True), place):
            if content is None:
                digests.append("")
                continue
            file.stamp = content.stamp
            row = number * self._views
            buffer[number] = self._slot(content.jpeg, content.sha256, row)
            digests.append(content.sha256)
        return digests

    def _slot(self, jpeg: JpegFile, digest: str, row: int) -> tuple[Photo, ...]:
        if self._views == 1:
            return (Photo(source=jpeg, row=row),)
        crops = tuple(self._augmentation.crop(jpeg.size, n, digest) for n in range(self._views))
        return (Photo(source=jpeg, row=row, crops=crops),)

    def skip(self, buffer: Slots, place: int) -> None:
        """See :meth:`zoo.caft.decode.Batches.skip`."""
        buffer[place] = ()

    def images(self, buffer: Slots, samples: int) -> Slots:
        """See :meth:`zoo.caft.decode.Batches.images`."""
        return buffer[:samples]

    def close(self) -> None:
        """See :meth:`zoo.caft.decode.Batches.close`."""
        self._photos.close()
        if self._readers is not None:
            self._readers.close()


Lend = Callable[[], AbstractContextManager[Preparer | None]]
"""Lends a preparer to the thread that calls it; None if there is no other."""


def prepared(
    batches: Generator[Batch[Slots], None, None],
    preparer: Preparer,
    views: int,
    lend: Lend = nullcontext,
) -> Generator[Batch[DeviceBatch], None, None]:
    """Prepares batches in other threads, ahead of the engine.

    The decoder gives up the GIL for every photo, and waits for it while others have it; the GPU has
    nothing to decode then. A second thread, with a preparer of its own, keeps it busy.

    Args:
        batches: Batches of photos; closed at the end.
        preparer: Prepares them.
        views: Rows per sample.
        lend: Lends the preparer of the second thread, which takes part as soon as it has it.

    Yields:
        Batches in the GPU's memory, in order. Each must be passed to the engine before the next is
        requested. Samples whose photos can't be decoded are marked as skipped.
    """
    work = _Preparation(batches, views)
    threads = [
        threading.Thread(target=work.run, args=(preparer,), name="prepare", daemon=True),
        threading.Thread(target=work.run_lent, args=(lend,), name="prepare", daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield from work.results()
    finally:
        work.stop()
        for thread in threads:
            thread.join()
        batches.close()


class _Preparation:
    """Batches that several threads prepare, and whose order is kept.

    Args:
        batches: Batches of photos.
        views: Rows per sample.
    """

    def __init__(self, batches: Generator[Batch[Slots], None, None], views: int) -> None:
        self._batches, self._views = batches, views
        self._taking = threading.Lock()
        self._ended = False
        self._started: queue.SimpleQueue[Future[Batch[DeviceBatch]] | None] = queue.SimpleQueue()
        """The batches to come, in order; None after the last."""
        self._free = threading.Semaphore(_AHEAD)

    def results(self) -> Generator[Batch[DeviceBatch], None, None]:
        """Yields the prepared batches in order."""
        while (started := self._started.get()) is not None:
            yield started.result()
            self._free.release()

    def run(self, preparer: Preparer) -> None:
        """Prepares batches until there are no more."""
        while (taken := self._take()) is not None:
            batch, result = taken
            try:
                result.set_result(_prepare(batch, preparer, self._views))
            except BaseException as error:  # raised in the caller's thread
                result.set_exception(error)
                self.stop()

    def run_lent(self, lend: Lend) -> None:
        """Does so with a preparer that takes a while to get, if there is one."""
        with suppress(RunError), lend() as preparer:  # it is no error to go on with one
            if preparer is not None and preparer.decoder is not None:
                self.run(preparer)

    def stop(self) -> None:
        """Has the threads take no more batches."""
        self._ended = True
        self._free.release()

    def _take(self) -> tuple[Batch[Slots], Future[Batch[DeviceBatch]]] | None:
        """Returns the next batch, and what will be made of it; None at the end."""
        self._free.acquire()
        with self._taking:
            if self._ended:
                self._free.release()  # for the other thread
                return None
            result: Future[Batch[DeviceBatch]] = Future()
            try:
                batch = next(self._batches, None)
            except BaseException as error:  # raised in the caller's thread
                result.set_exception(error)
                self._started.put(result)
                batch = None
            if batch is None:
                self._started.put(None)
                self._ended = True
                self._free.release()
                return None
            self._started.put(result)
            return batch, result


def _prepare(batch: Batch[Slots], preparer: Preparer, views: int) -> Batch[DeviceBatch]:
    photos = [photo for slot in batch.images for photo in slot]
    result = preparer.prepare(photos, len(batch.outcomes) * views)
    outcomes = list(batch.outcomes)
    for number, reason in result.failed.items():
        place = photos[number].row // views
        outcomes[place] = replace(outcomes[place], sha256="", error=reason)
    return Batch(images=result.images, outcomes=tuple(outcomes))
