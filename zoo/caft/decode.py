"""Decodes samples into preprocessed batches, in several threads, ahead of the engine.

Each thread writes its images to their places in the batch. Batches come out in the order of the
source, and a few buffers are reused, so memory does not grow with the data set. Pillow, SHA-256 and
NumPy release the GIL, so a few threads keep a few cores busy; with more cores, each thread has a
process that decodes for it.
"""

from __future__ import annotations

import io
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.augment import Augmentation
from zoo.caft.content import digest_of, is_preprocessed
from zoo.caft.decode_process import MOST_THREADS, DecodeProcess, NoProcessError, reason_of, views_of
from zoo.caft.labels import LabelError
from zoo.caft.sample import Item, Sample
from zoo.inference.preprocess import Exif, as_photo, normalise_into, open_photo
from zoo.schema.manifest import Preprocess
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RunError

_BUFFERS = 3
"""One that the engine reads, one that is full, one that is being filled."""

_MOST_AT_ONCE = 16
"""Most samples per task of a thread; a task of its own would cost more than decoding some."""


def _plain(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.empty(shape, np.float32)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The outcome of decoding a sample.

    Attributes:
        sample: The sample.
        label: The name of its class, None if it has none.
        sha256: Digest of its file, or of its pixels if it has no file; empty if it was skipped.
        error: Why it was skipped, None if it was not.
    """

    sample: Sample
    label: str | None
    sha256: str
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A preprocessed batch.

    Attributes:
        images: ``(samples * views, 3, H, W)`` float32; the views of a sample are adjacent, rows of
            a skipped sample are zeros. Valid until the next batch is requested.
        outcomes: One per sample.
    """

    images: npt.NDArray[np.float32]
    outcomes: tuple[Decoded, ...]


class Decoder:
    """Decodes samples into preprocessed batches.

    Args:
        preprocess: The engine's preprocessing.
        augmentation: The views of each image.
        samples: Number of samples per batch.
        workers: Number of threads; by default the number of cores available to this process.
        processes: Whether each thread has a process that decodes for it; by default only if there
            are many threads.
        exif: Whether to turn photos as their EXIF orientation says.
        memory: Allocates the buffers, which are unused once :meth:`batches` is closed.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        augmentation: Augmentation,
        *,
        samples: int,
        workers: int | None = None,
        processes: bool | None = None,
        exif: Exif = "ignore",
        memory: Callable[[tuple[int, ...]], npt.NDArray[np.float32]] = _plain,
    ) -> None:
        self._preprocess = preprocess
        self._augmentation = augmentation
        self._samples = samples
        self._memory = memory
        self._exif = exif
        self._workers = workers or len(os.sched_getaffinity(0))
        self._at_once = min(_MOST_AT_ONCE, max(1, samples // (4 * self._workers)))
        self._side = preprocess.input_size
        self._with_processes = (
            self._workers > MOST_THREADS and hasattr(os, "memfd_create")
            if processes is None
            else processes
        )
        self._processes: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()

    def batches(self, source: Iterable[Sample]) -> Generator[Batch, None, None]:
        """Yields batches in the order of the source; the last may be smaller.

        Raises:
            DatasetError: Reading the source failed. All batches before that have been yielded.
            RunError: A decoding process does not start.
        """
        ready: queue.Queue[Any] = queue.Queue()  # bounded by the number of buffers
        free: queue.Queue[Any] = queue.Queue()
        shape = (self._samples * self._augmentation.views, 3, self._side, self._side)
        for _ in range(_BUFFERS):
            free.put(self._memory(shape))
        stop = threading.Event()
        with (
            self._ending_processes(),
            ThreadPoolExecutor(self._workers, "decode") as pool,
            _filling(lambda: self._fill(source, pool, free, ready, stop), stop, free),
        ):
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                buffer, futures = item
                outcomes = tuple(outcome for future in futures for outcome in future.result())
                rows = len(outcomes) * self._augmentation.views
                yield Batch(images=buffer[:rows], outcomes=outcomes)
                free.put(buffer)

    def _fill(
        self,
        source: Iterable[Sample],
        pool: ThreadPoolExecutor,
        free: queue.Queue[Any],
        ready: queue.Queue[Any],
        stop: threading.Event,
    ) -> None:
        """Submits samples to the pool, a batch at a time, as buffers become free."""
        try:
            samples = iter(source)
            while not stop.is_set():
                buffer = free.get()
                futures: list[Future[list[Decoded]]] = []
                try:
                    self._hand_out(samples, pool, buffer, futures, stop)
                finally:  # if the source fails, decode what came before
                    if futures and not stop.is_set():
                        ready.put((buffer, futures))
                if not futures:
                    break
            ready.put(None)
        except BaseException as error:  # batches() raises it in the caller's thread
            ready.put(error)

    def _hand_out(
        self,
        samples: Iterator[Sample],
        pool: ThreadPoolExecutor,
        buffer: Any,
        futures: list[Future[list[Decoded]]],
        stop: threading.Event,
    ) -> None:
        """Submits the samples of a batch, a few per task."""
        for place in range(0, self._samples, self._at_once):
            if stop.is_set():
                return
            task: list[Sample] = []
            try:
                task.extend(islice(samples, min(self._at_once, self._samples - place)))
            finally:
                if task:
                    futures.append(pool.submit(self._decode_task, task, place, buffer))
            if not task:
                return

    def _decode_task(self, samples: list[Sample], place: int, buffer: Any) -> list[Decoded]:
        return [self._decode(sample, place + n, buffer) for n, sample in enumerate(samples)]

    def _decode(self, sample: Sample, place: int, buffer: Any) -> Decoded:
        views = self._augmentation.views
        rows = buffer[place * views : (place + 1) * views]
        label = sample.label
        try:
            image = sample.read()
            if isinstance(image, Item):
                image, label = image.image, image.label
            digest = self._write(image, rows)
        except (NoProcessError, LabelError):
            raise  # not the image's fault
        except Exception as error:  # a data set's own code may raise anything
            rows[:] = 0
            return Decoded(sample=sample, label=label, sha256="", error=reason_of(error))
        return Decoded(sample=sample, label=label, sha256=digest)

    def _write(self, image: Any, rows: npt.NDArray[np.float32]) -> str:
        """Writes each view of an image to its row; returns the image's digest."""
        if is_preprocessed(image):
            return self._write_preprocessed(image, rows)
        if isinstance(image, bytes):
            if self._with_processes:
                return self._write_from_process(image, rows)
            digest, photo = sha256_bytes(image), open_photo(io.BytesIO(image), self._exif)
        else:
            digest, photo = digest_of(image), as_photo(image, self._exif)
        views = views_of(photo, digest, self._preprocess, self._augmentation)
        for row, pixels in zip(rows, views, strict=True):
            normalise_into(row, pixels, self._preprocess)
        return digest

    def _write_from_process(self, data: bytes, rows: npt.NDArray[np.float32]) -> str:
        try:
            process = self._processes.get_nowait()
        except queue.Empty:  # at most one process per thread
            process = DecodeProcess(self._preprocess, self._augmentation, self._exif)
        try:
            digest = process.decode(data)
            for row, pixels in zip(rows, process.pixels, strict=True):
                normalise_into(row, pixels, self._preprocess)
        finally:
            self._processes.put(process)
        return digest

    @contextmanager
    def _ending_processes(self) -> Iterator[None]:
        """Ends the processes once the threads that use them are done."""
        try:
            yield
        finally:
            while not self._processes.empty():
                self._processes.get().close()

    def _write_preprocessed(self, image: Any, rows: npt.NDArray[np.float32]) -> str:
        array = np.asarray(image)
        shape = (3, self._side, self._side)
        if array.shape != shape:
            raise RunError(
                f"preprocessed input has shape {array.shape}, but the engine's is {shape}"
            )
        if len(rows) > 1:
            raise RunError("preprocessed input can't be augmented; pass photos instead")
        rows[0] = array
        return digest_of(array)


@contextmanager
def _filling(fill: Any, stop: threading.Event, free: queue.Queue[Any]) -> Iterator[None]:
    """Runs ``fill`` in a thread and stops it on exit."""
    thread = threading.Thread(target=fill, name="read", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        free.put(np.empty((0, 3, 0, 0), np.float32))  # wakes it if it waits for a buffer
        thread.join()
