"""Decoding: samples to ready batches, in several threads, ahead of the engine.

Each thread writes the input of its image to its place in the batch. Batches come out in the order
of the source, and a few buffers go round: memory does not grow with the data set. Pillow, SHA-256
and numpy do their work without Python's lock, so that a few threads keep a few cores busy; where
there are more, each thread has a process that decodes for it.
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
from PIL import Image

from zoo.caft.augment import Augmentation
from zoo.caft.decode_process import DecodeProcess, NoProcessError, reason_of, views_of
from zoo.caft.sample import Item, Sample
from zoo.inference.preprocess import as_photo, normalise_into, open_photo
from zoo.schema.manifest import Preprocess
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RunError

_BUFFERS = 3
"""One that the engine reads, one that is full and waits, one that is being filled."""

_MOST_AT_ONCE = 16
"""Samples that a thread is handed together: handing out costs more than some of them do."""

_MOST_THREADS = 4
"""Workers that decode as threads; more of them get a process each."""


def _plain(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.empty(shape, np.float32)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What became of one sample.

    Attributes:
        sample: Which.
        label: Its class.
        sha256: Of the bytes of its file, or of its pixels where it has no file; empty if bad.
        error: Why it is left out, None where it is not.
    """

    sample: Sample
    label: str | None
    sha256: str
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Ready input, and what is in it.

    Attributes:
        images: ``(samples * views, 3, H, W)`` float32; the views of a sample stand together. Rows
            of a bad sample are zeros. Valid until the next batch is asked for.
        outcomes: One for each sample.
    """

    images: npt.NDArray[np.float32]
    outcomes: tuple[Decoded, ...]


class Decoder:
    """Makes ready batches.

    Args:
        preprocess: Of the engine.
        augmentation: Which views of each image there are.
        samples: How many of them a batch has.
        workers: Threads; as many as this process has cores when None.
        processes: Whether each has a process that decodes for it; where they are many, when None.
        memory: Makes the buffers; they are not used any more once :meth:`batches` is closed.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        augmentation: Augmentation,
        *,
        samples: int,
        workers: int | None = None,
        processes: bool | None = None,
        memory: Callable[[tuple[int, ...]], npt.NDArray[np.float32]] = _plain,
    ) -> None:
        self._preprocess = preprocess
        self._augmentation = augmentation
        self._samples = samples
        self._memory = memory
        self._workers = workers or len(os.sched_getaffinity(0))
        self._at_once = min(_MOST_AT_ONCE, max(1, samples // (4 * self._workers)))
        self._side = preprocess.input_size
        self._with_processes = (
            self._workers > _MOST_THREADS and hasattr(os, "memfd_create")
            if processes is None
            else processes
        )
        self._processes: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()

    def batches(self, source: Iterable[Sample]) -> Generator[Batch, None, None]:
        """Yields batches in the order of the source; the last may be smaller.

        Raises:
            DatasetError: The source can't be read further. What came before has been yielded.
            RunError: A process that decodes does not start.
        """
        ready: queue.Queue[Any] = queue.Queue()  # as long as there are buffers: it needs no bound
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
                outcomes = tuple(one for future in futures for one in future.result())
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
        """Hands samples out to the pool, a batch at a time, while there are buffers."""
        try:
            samples = iter(source)
            while not stop.is_set():
                buffer = free.get()
                futures: list[Future[list[Decoded]]] = []
                try:
                    self._hand_out(samples, pool, buffer, futures, stop)
                finally:  # where the source fails, what came before it is decoded
                    if futures and not stop.is_set():
                        ready.put((buffer, futures))
                if not futures:
                    break
            ready.put(None)
        except BaseException as error:  # it is raised where the batches are taken
            ready.put(error)

    def _hand_out(
        self,
        samples: Iterator[Sample],
        pool: ThreadPoolExecutor,
        buffer: Any,
        futures: list[Future[list[Decoded]]],
        stop: threading.Event,
    ) -> None:
        """Hands out the samples of a batch, some at a time."""
        for place in range(0, self._samples, self._at_once):
            if stop.is_set():
                return
            some: list[Sample] = []
            try:
                some.extend(islice(samples, min(self._at_once, self._samples - place)))
            finally:
                if some:
                    futures.append(pool.submit(self._decode_some, some, place, buffer))
            if not some:
                return

    def _decode_some(self, samples: list[Sample], place: int, buffer: Any) -> list[Decoded]:
        return [self._decode(one, place + n, buffer) for n, one in enumerate(samples)]

    def _decode(self, sample: Sample, place: int, buffer: Any) -> Decoded:
        views = self._augmentation.views
        rows = buffer[place * views : (place + 1) * views]
        label = sample.label
        try:
            given = sample.read()
            if isinstance(given, Item):
                given, label = given.image, given.label
            digest = self._write(given, rows)
        except NoProcessError:
            raise  # that is no fault of the image
        except Exception as error:  # a data set's own code may raise anything; it names the image
            rows[:] = 0
            return Decoded(sample=sample, label=label, sha256="", error=reason_of(error))
        return Decoded(sample=sample, label=label, sha256=digest)

    def _write(self, given: Any, rows: npt.NDArray[np.float32]) -> str:
        """Writes each view of an image to its row; returns the image's digest."""
        if _is_ready_input(given):
            return self._write_ready(given, rows)
        if isinstance(given, bytes):
            if self._with_processes:
                return self._write_from_process(given, rows)
            digest, photo = sha256_bytes(given), open_photo(io.BytesIO(given))
        else:
            photo = as_photo(given)
            digest = sha256_bytes(f"{photo.mode} {photo.size}".encode() + photo.tobytes())
        views = views_of(photo, digest, self._preprocess, self._augmentation)
        for row, pixels in zip(rows, views, strict=True):
            normalise_into(row, pixels, self._preprocess)
        return digest

    def _write_from_process(self, data: bytes, rows: npt.NDArray[np.float32]) -> str:
        try:
            process = self._processes.get_nowait()
        except queue.Empty:  # as many as there are threads, at most
            process = DecodeProcess(self._preprocess, self._augmentation)
        try:
            digest = process.decode(data)
            for row, pixels in zip(rows, process.pixels, strict=True):
                normalise_into(row, pixels, self._preprocess)
        finally:
            self._processes.put(process)
        return digest

    @contextmanager
    def _ending_processes(self) -> Iterator[None]:
        """Ends the processes, when the threads that used them have come to rest."""
        try:
            yield
        finally:
            while not self._processes.empty():
                self._processes.get().close()

    def _write_ready(self, given: Any, rows: npt.NDArray[np.float32]) -> str:
        image = np.asarray(given)
        wanted = (3, self._side, self._side)
        if image.shape != wanted:
            raise RunError(f"ready input has shape {image.shape}, the engine takes {wanted}")
        if len(rows) > 1:
            raise RunError("ready input can't be augmented; give photos")
        rows[0] = image
        return sha256_bytes(np.ascontiguousarray(image, np.float32).data)


@contextmanager
def _filling(fill: Any, stop: threading.Event, free: queue.Queue[Any]) -> Iterator[None]:
    """Runs ``fill`` in a thread, and ends it when its batches are no longer wanted."""
    thread = threading.Thread(target=fill, name="read", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        free.put(np.empty((0, 3, 0, 0), np.float32))  # it may wait for one
        thread.join()


def _is_ready_input(given: Any) -> bool:
    kind = str(getattr(given, "dtype", ""))
    return "float" in kind and not isinstance(given, Image.Image)
