"""Decodes samples into batches, in several threads, ahead of the engine.

Each thread writes its images to their places in a batch. There are two kinds of batch:
:class:`HostBatches`, of preprocessed images in the host's memory, and
:class:`zoo.caft.gpu_batches.GpuBatches`, of photos that a GPU prepares. Batches come out in the
order of the source, and a few buffers are reused, so memory does not grow with the data set.
Pillow, SHA-256 and NumPy release the GIL, so a few threads keep a few cores busy; with more cores,
each thread has a process that decodes for it.
"""

from __future__ import annotations

import io
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from zoo.caft.attempts import Attempts
from zoo.caft.augment import Augmentation
from zoo.caft.content import digest_of, is_preprocessed
from zoo.caft.decode_process import (
    EXACT,
    MOST_THREADS,
    DecodeProcess,
    Decoding,
    NoProcessError,
    Pixels,
    reason_of,
    views_of,
)
from zoo.caft.labels import LabelError, own_class
from zoo.caft.room import Room
from zoo.caft.sample import Item, Sample
from zoo.inference.preprocess import as_photo, decoded_size, normalise_into, open_photo
from zoo.schema.manifest import Preprocess
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RunError
from zoo.util.faults import MachineError

_BUFFERS = 3
"""One that the engine reads, one that is full, one that is being filled."""

_MOST_AT_ONCE = 32
"""Most samples per task of a thread; a task of its own would cost more than decoding some."""

_TASKS = 4
"""Tasks per thread and batch: with one each, all would wait for the slowest."""

Images = TypeVar("Images", covariant=True)
Buffer = Any
"""A buffer of a kind of batch, which no other reads."""


def _plain(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.empty(shape, np.float32)


@dataclass(kw_only=True, slots=True)  # not frozen: see Sample
class Decoded:
    """The outcome of decoding a sample; nobody changes it.

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
class Batch(Generic[Images]):
    """A batch.

    Attributes:
        images: ``(samples * views, 3, H, W)`` float32, preprocessed, or what else the kind of batch
            has; the views of a sample are adjacent, rows of a skipped sample are zeros. Valid until
            the next batch is requested.
        outcomes: One per sample.
    """

    images: Images
    outcomes: tuple[Decoded, ...]


class Batches(Protocol[Images]):
    """A kind of batch: what samples are decoded into."""

    def new_buffer(self, samples: int) -> Buffer:
        """Returns a buffer for a batch; buffers are used again."""
        ...

    def write(self, image: Any, buffer: Buffer, place: int) -> str:
        """Decodes an image into its place in a buffer; called in several threads.

        Args:
            image: What :attr:`zoo.caft.sample.Sample.read` returned.
            buffer: The buffer.
            place: Number of the sample in the batch.

        Returns:
            The image's digest.
        """
        ...

    def read(self, reads: Sequence[Any], buffer: Buffer, place: int) -> Sequence[str]:
        """Reads and decodes the images of adjacent samples together, where that is faster.

        Args:
            reads: :attr:`zoo.caft.sample.Sample.read` of each.
            buffer: The buffer.
            place: Number of the first sample in the batch.

        Returns:
            The digest of each image that is in the buffer now, empty for those to be read one by
            one.
        """
        ...

    def skip(self, buffer: Buffer, place: int) -> None:
        """Clears the place of an image that can't be decoded."""
        ...

    def images(self, buffer: Buffer, samples: int) -> Images:
        """Returns the images of a buffer with some samples in it."""
        ...

    def close(self) -> None:
        """Ends what decodes, once no thread calls :meth:`write` any more."""
        ...


class Decoder(Generic[Images]):
    """Decodes samples into batches.

    Args:
        kind: The kind of batch.
        samples: Number of samples per batch.
        workers: Number of threads; by default the number of cores available to this process.
        tasks: Tasks per thread and batch, if there are that many samples.
    """

    def __init__(
        self,
        kind: Batches[Images],
        *,
        samples: int,
        workers: int | None = None,
        tasks: int = _TASKS,
    ) -> None:
        self._kind = kind
        self._samples = samples
        self._workers = workers or cores()
        self._attempts = Attempts(self._workers)
        self._at_once = min(_MOST_AT_ONCE, max(1, samples // (tasks * self._workers)))

    def batches(self, source: Iterable[Sample]) -> Generator[Batch[Images], None, None]:
        """Yields batches in the order of the source; the last may be smaller.

        Raises:
            DatasetError: Reading the source failed. All batches before that have been yielded.
            RunError: A decoding process does not start.
        """
        ready: queue.Queue[Any] = queue.Queue()  # bounded by the number of buffers
        free: queue.Queue[Any] = queue.Queue()
        for _ in range(_BUFFERS):
            free.put(self._kind.new_buffer(self._samples))
        stop = threading.Event()
        with (
            closing(self._kind),
            ThreadPoolExecutor(self._workers, "decode") as pool,
            _filling(lambda: self._fill(source, pool, free, ready, stop), stop, free),
        ):
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                buffer, futures = item
                outcomes = tuple(outcome for future in futures for outcome in future.result())
                images = self._kind.images(buffer, len(outcomes))
                yield Batch(images=images, outcomes=outcomes)
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
            while True:
                buffer = free.get()
                if stop.is_set():
                    break
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
        digests = self._kind.read([sample.read for sample in samples], buffer, place)
        return [
            Decoded(sample=sample, label=sample.label, sha256=digest)
            if digest
            else self._decode(sample, number, buffer)
            for number, (sample, digest) in enumerate(zip(samples, digests, strict=True), place)
        ]

    def _decode(self, sample: Sample, place: int, buffer: Any) -> Decoded:
        label = sample.label

        def digest() -> str:
            nonlocal label
            image = sample.read()
            if isinstance(image, Item):
                image, label = image.image, own_class(image.label, sample.name)
            return self._kind.write(image, buffer, place)

        try:
            sha256 = self._attempts.run(digest, sample.name)
        except (NoProcessError, LabelError, MachineError):
            raise  # not the image's fault
        except Exception as error:  # a data set's own code may raise anything
            self._kind.skip(buffer, place)
            return Decoded(sample=sample, label=label, sha256="", error=reason_of(error))
        return Decoded(sample=sample, label=label, sha256=sha256)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A photo that another process has read.

    Attributes:
        photo: The photo, RGB, turned as its EXIF orientation says if that is wanted.
        digest: The digest of what it was made from.
    """

    photo: Image.Image
    digest: str


class PhotoDecoder:
    """Decodes photos with Pillow, at the engine's input size, in the calling thread or for it.

    Args:
        preprocess: The engine's preprocessing.
        augmentation: The views of each photo.
        workers: Number of threads that call it; by default the number of cores.
        processes: Whether each thread has a process that decodes for it; by default only if there
            are many threads.
        decoding: How photos are decoded.

    Attributes:
        workers: Number of threads that call it.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        augmentation: Augmentation,
        *,
        workers: int | None = None,
        processes: bool | None = None,
        decoding: Decoding = EXACT,
    ) -> None:
        self._preprocess = preprocess
        self._augmentation = augmentation
        self._decoding = decoding
        self.workers = workers or cores()
        self._with_processes = (
            self.workers > MOST_THREADS and hasattr(os, "memfd_create")
            if processes is None
            else processes
        )
        self._processes: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()
        self._room = Room()

    @property
    def name(self) -> str:
        """The decoder, with its version."""
        return f"Pillow {PIL.__version__}" + (", reduced" if self._decoding.fast else "")

    @contextmanager
    def views(self, image: Any) -> Iterator[tuple[str, Iterable[Pixels]]]:
        """Yields a photo's digest and the pixels of its views, valid within the context.

        Args:
            image: The bytes of its file, a Pillow image, pixels, or a :class:`Prepared` photo.
        """
        if isinstance(image, Prepared):
            digest, photo = image.digest, image.photo
            yield digest, views_of(photo, digest, self._preprocess, self._augmentation)
        elif not isinstance(image, bytes):
            digest, photo = digest_of(image), as_photo(image, self._decoding.exif)
            yield digest, views_of(photo, digest, self._preprocess, self._augmentation)
        elif self._with_processes:
            with self._process() as process:
                yield process.decode(image, self._room), process.pixels
        else:
            least = self._decoding.least_side(self._preprocess, self._augmentation)
            with self._room.taken(decoded_size(image, least)):
                photo = open_photo(io.BytesIO(image), self._decoding.exif, least)
                digest = sha256_bytes(image)
                try:
                    yield digest, views_of(photo, digest, self._preprocess, self._augmentation)
                finally:
                    del photo

    def close(self) -> None:
        """Ends the processes, once no thread uses them any more."""
        while not self._processes.empty():
            self._processes.get().close()

    @contextmanager
    def _process(self) -> Iterator[DecodeProcess]:
        try:
            process = self._processes.get_nowait()
        except queue.Empty:  # at most one process per thread
            process = DecodeProcess(self._preprocess, self._augmentation, self._decoding)
        try:
            yield process
        finally:
            self._processes.put(process)


class HostBatches:
    """Batches of preprocessed images in the host's memory.

    Args:
        preprocess: The engine's preprocessing.
        augmentation: The views of each image.
        photos: Decodes photos.
        memory: Allocates the buffers, which are unused once the decoder's batches are closed.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        augmentation: Augmentation,
        photos: PhotoDecoder,
        memory: Callable[[tuple[int, ...]], npt.NDArray[np.float32]] = _plain,
    ) -> None:
        self._preprocess = preprocess
        self._views = augmentation.views
        self._photos = photos
        self._memory = memory

    def new_buffer(self, samples: int) -> npt.NDArray[np.float32]:
        """See :meth:`Batches.new_buffer`."""
        height, width = self._preprocess.height, self._preprocess.width
        return self._memory((samples * self._views, 3, height, width))

    def write(self, image: Any, buffer: npt.NDArray[np.float32], place: int) -> str:
        """See :meth:`Batches.write`."""
        rows = self._rows(buffer, place)
        if is_preprocessed(image):
            array = as_preprocessed(image, self._preprocess, self._views)
            rows[0] = array
            return digest_of(array)
        with self._photos.views(image) as (digest, views):
            for row, pixels in zip(rows, views, strict=True):
                normalise_into(row, pixels, self._preprocess)
        return digest

    def read(
        self, reads: Sequence[Any], buffer: npt.NDArray[np.float32], place: int
    ) -> Sequence[str]:
        """See :meth:`Batches.read`."""
        return [""] * len(reads)

    def skip(self, buffer: npt.NDArray[np.float32], place: int) -> None:
        """See :meth:`Batches.skip`."""
        self._rows(buffer, place)[:] = 0

    def images(self, buffer: npt.NDArray[np.float32], samples: int) -> npt.NDArray[np.float32]:
        """See :meth:`Batches.images`."""
        return buffer[: samples * self._views]

    def close(self) -> None:
        """See :meth:`Batches.close`."""
        self._photos.close()

    def _rows(self, buffer: npt.NDArray[np.float32], place: int) -> npt.NDArray[np.float32]:
        return buffer[place * self._views : (place + 1) * self._views]


@contextmanager
def _filling(fill: Any, stop: threading.Event, free: queue.Queue[Any]) -> Iterator[None]:
    """Runs ``fill`` in a thread and stops it on exit."""
    thread = threading.Thread(target=fill, name="read", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        free.put(None)  # wakes it if it waits for a buffer
        thread.join()


def host_decoder(
    preprocess: Preprocess,
    augmentation: Augmentation,
    *,
    samples: int,
    workers: int | None = None,
    processes: bool | None = None,
    decoding: Decoding = EXACT,
    memory: Callable[[tuple[int, ...]], npt.NDArray[np.float32]] = _plain,
) -> Decoder[npt.NDArray[np.float32]]:
    """Returns a decoder with Pillow into the host's memory; see the classes for the arguments."""
    photos = PhotoDecoder(
        preprocess, augmentation, workers=workers, processes=processes, decoding=decoding
    )
    kind = HostBatches(preprocess, augmentation, photos, memory)
    return Decoder(kind, samples=samples, workers=workers)


def as_preprocessed(image: Any, preprocess: Preprocess, views: int) -> npt.NDArray[np.float32]:
    """Returns preprocessed input, ``(3, H, W)`` float32, contiguous.

    Raises:
        RunError: It has another shape, or is to be augmented.
    """
    array = np.asarray(image)
    expected = (3, preprocess.height, preprocess.width)
    if array.shape != expected:
        raise RunError(
            f"preprocessed input has shape {array.shape}, but the engine's is {expected}"
        )
    if views > 1:
        raise RunError("preprocessed input can't be augmented; pass photos instead")
    return np.ascontiguousarray(array, np.float32)


def cores() -> int:
    """Returns the number of cores available to this process."""
    return len(os.sched_getaffinity(0))
