"""Prepares photos on the GPU: turns JPEG files and pixels into the engine's input.

A batch may contain photos of any sizes. Files that the GPU's decoder does not support, or fails on,
are decoded by Pillow and uploaded as 8-bit pixels. All are resized, bit-identically to Pillow, and
normalised by the same kernels. The host's memory never holds a floating-point batch.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.inference.crop import Crop
from zoo.inference.gpu.decoder import HardwareDecoder, JpegDecoder, PixelsOnGpu
from zoo.inference.gpu.jpeg import JpegFile
from zoo.inference.gpu.kernels import CudaKernels, Kernels
from zoo.inference.gpu.staging import Staging
from zoo.inference.gpu.views import Source, stack, views_of
from zoo.inference.preprocess import open_photo
from zoo.runtime import cuda
from zoo.runtime.base import DeviceSession
from zoo.runtime.cuda import DeviceBatch
from zoo.util.errors import MissingPackageError, RunError, ZooError
from zoo.util.faults import MachineError, persistently

if TYPE_CHECKING:
    from cuda.core import Event, Stream

    from zoo.schema.manifest import Preprocess

Pixels = npt.NDArray[np.uint8]
Input = npt.NDArray[np.float32]

_DECODED_AT_ONCE = 768 << 20
"""Largest size in bytes of a group of decoded photos; there are up to two groups at a time."""

_BATCHES = 3
"""Batches in memory: one that the engine reads, one ready, one being prepared."""


@dataclass(kw_only=True, slots=True)  # not frozen: see zoo.caft.sample.Sample
class Photo:
    """A photo to prepare.

    Attributes:
        source: A file; pixels, ``(H, W, 3)`` uint8 RGB; or preprocessed input for the engine,
            ``(3, height, width)`` float32.
        row: Its first row in the batch.
        crops: The rectangle that each row is made from; by default one row, of the whole photo.
        fitted: Whether the pixels are already resized and cropped.
    """

    source: JpegFile | Pixels | Input
    row: int
    crops: tuple[Crop, ...] = ()
    fitted: bool = False

    @property
    def decoded_bytes(self) -> int:
        """Size in bytes before it is resized."""
        if isinstance(self.source, JpegFile):
            return 3 * self.source.size.width * self.source.size.height
        return self.source.nbytes


@dataclass(kw_only=True)
class Prepared:
    """A prepared batch.

    Attributes:
        images: The batch, in the GPU's memory.
        failed: Reason for each photo that can't be decoded, by its position in the input. Its rows
            hold arbitrary finite values.
    """

    images: DeviceBatch
    failed: dict[int, str] = field(default_factory=dict)


class Preparer:
    """Prepares the batches of an engine on its own stream; used by one thread at a time.

    Args:
        session: The engine.
        preprocess: Its preprocessing.
        rows: Rows of the largest batch.

    Attributes:
        rows: Rows of the largest batch.
        most_memory: Most bytes of the GPU's memory that it takes.
        decoder: Decodes JPEG files on the GPU, None if the GPU can't.
        without_decoder: Why there is no decoder.

    Raises:
        MissingPackageError: CUDA's run-time compiler is not installed.
        RunError: The GPU does not have enough memory.
    """

    def __init__(self, session: DeviceSession, preprocess: Preprocess, rows: int) -> None:
        self._device = session.device
        self._device.set_current()
        self.rows = rows
        self.without_decoder = ""
        with ExitStack() as undo:
            self._stream: Stream = self._device.create_stream()
            undo.callback(self._stream.close)
            self._kernels: Kernels = CudaKernels(
                self._device, preprocess, session.image_type, self._stream
            )
            undo.callback(self._kernels.close)
            self.decoder = self._open_decoder()
            if self.decoder is not None:
                undo.callback(self.decoder.close)
            self._preprocess = preprocess
            self._type = session.image_type
            pixels = preprocess.height * preprocess.width
            self._image_bytes = 3 * pixels * self._type.itemsize
            self.most_memory = _BATCHES * rows * self._image_bytes + 2 * _DECODED_AT_ONCE
            self._batches = [self._new_batch() for _ in range(_BATCHES)]
            self._groups: deque[Event] = deque(maxlen=2)
            self._staging = Staging()
            undo.callback(self._staging.close)
            self._undo = undo.pop_all()

    def prepare(self, photos: Sequence[Photo], rows: int) -> Prepared:
        """Prepares a batch.

        Args:
            photos: The photos; rows that they leave free hold zeros or older data.
            rows: Number of rows of the batch, at most :attr:`rows`.

        Returns:
            The batch, which is valid until the second call after this one.
        """
        images = self._next_batch(rows)
        failed: dict[int, str] = {}
        for group in _groups(photos, _DECODED_AT_ONCE):
            self._prepare_group(photos, group, images.address, failed)
        images.ready = self._stream.record()
        return Prepared(images=images, failed=failed)

    def prepare_stack(self, pixels: Pixels) -> DeviceBatch:
        """Prepares photos of the same size.

        Args:
            pixels: ``(N, H, W, 3)``, RGB, contiguous; N is at most :attr:`rows`.

        Returns:
            The batch, which is valid until the second call after this one.
        """
        images = self._next_batch(len(pixels))
        _, height, width, _ = pixels.shape
        with self._uploaded([pixels]) as (address,):
            views = views_of(stack(address, len(pixels), width, height), self._preprocess)
            self._kernels.prepare(views, images.address, self._stream)
        images.ready = self._stream.record()
        return images

    def close(self) -> None:
        """Waits for running work, then frees all memory."""
        self._device.set_current()
        self._stream.sync()
        for batch in self._batches:
            batch.read.sync()
            batch.buffer.close()
        self._undo.close()

    def _next_batch(self, rows: int) -> DeviceBatch:
        """Returns memory for a batch; the stream waits until the engine has read the old one."""
        self._device.set_current()
        self._batches.append(self._batches.pop(0))
        images = self._batches[-1]
        images.rows = rows
        self._stream.wait(images.read)
        return images

    def _open_decoder(self) -> JpegDecoder | None:
        try:
            return HardwareDecoder(self._device, self._stream)
        except (MissingPackageError, RunError) as error:
            self.without_decoder = error.message
            return None

    def _new_batch(self) -> DeviceBatch:
        size = self.rows * self._image_bytes
        buffer = self._device.allocate(size, stream=self._stream)
        buffer.fill(0, stream=self._stream)  # a failed photo's row must not be NaN
        filled = self._stream.record()
        return DeviceBatch(buffer=buffer, rows=0, ready=filled, read=filled)

    def _prepare_group(
        self, photos: Sequence[Photo], group: range, address: int, failed: dict[int, str]
    ) -> None:
        """Enqueues the preparation of a group of photos."""
        decoded, arrays = self._decode(photos, group, failed)
        sources: list[Source] = []
        for number, jpeg in decoded.items():
            sources += _sources(photos[number], jpeg)
        with self._uploaded(arrays.values()) as addresses:
            for (number, array), start in zip(arrays.items(), addresses, strict=True):
                photo = photos[number]
                if array.dtype == np.uint8:
                    height, width, _ = array.shape
                    pixels = PixelsOnGpu(address=start, pitch=3 * width, width=width, height=height)
                    sources += _sources(photo, pixels)
                else:
                    row = address + photo.row * self._image_bytes
                    cuda.copy_over(row, start, self._image_bytes, self._stream)
            if sources:
                self._kernels.prepare(views_of(sources, self._preprocess), address, self._stream)
        self._groups.append(cuda.record(self._stream))

    @contextmanager
    def _uploaded(self, arrays: Collection[npt.NDArray[Any]]) -> Iterator[list[int]]:
        """Yields the GPU addresses of copies of arrays; they are freed in stream order."""
        if not arrays:
            yield []
            return
        sizes = [array.nbytes for array in arrays]
        buffer = self._device.allocate(sum(sizes), stream=self._stream)
        start = int(buffer.handle)
        self._staging.copy(start, list(arrays), self._stream)
        yield [start + end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
        buffer.close(self._stream)

    def _decode(
        self, photos: Sequence[Photo], group: range, failed: dict[int, str]
    ) -> tuple[dict[int, PixelsOnGpu], dict[int, npt.NDArray[Any]]]:
        """Decodes files; returns photos that are on the GPU, and arrays to upload."""
        decoded: dict[int, PixelsOnGpu] = {}
        arrays: dict[int, npt.NDArray[Any]] = {}
        files: dict[int, JpegFile] = {}
        for number in group:
            source = photos[number].source
            if isinstance(source, JpegFile):
                files[number] = source
            else:
                arrays[number] = source if source.dtype == np.uint8 else source.astype(self._type)
        on_gpu = self._decode_on_gpu(list(files.values()))
        for (number, file), jpeg in zip(files.items(), on_gpu, strict=True):
            if jpeg is not None:
                decoded[number] = jpeg
                continue
            try:
                arrays[number] = persistently(partial(_by_pillow, file), "a photo of the batch")
            except MachineError:
                raise  # not the photo's fault
            except ZooError as error:
                failed[number] = error.message
        return decoded, arrays

    def _decode_on_gpu(self, files: list[JpegFile]) -> Sequence[PixelsOnGpu | None]:
        if not files or self.decoder is None:
            return [None] * len(files)
        if len(self._groups) == 2:  # the decoder reuses the memory of the group before the last
            self._groups[0].sync()
        return self.decoder.decode(files, self._stream)


class Preparers:
    """A pool of an engine's preparers, which take seconds to open.

    Args:
        session: The engine.
        preprocess: Its preprocessing.

    Attributes:
        missing: Message about the missing package if no preparer can be opened, else empty.
    """

    def __init__(self, session: DeviceSession, preprocess: Preprocess) -> None:
        self._session = session
        self._preprocess = preprocess
        self._lock = threading.Lock()
        self._idle: list[Preparer] = []
        self._closed = False
        self.missing = ""

    @contextmanager
    def lend(self, rows: int) -> Iterator[Preparer | None]:
        """Lends a preparer to one thread at a time; None if packages are missing.

        Args:
            rows: Rows of the largest batch.

        Raises:
            RunError: The GPU does not have enough memory.
        """
        preparer = self._take(rows)
        try:
            yield preparer
        except Exception as error:
            if preparer is not None and isinstance(error, ZooError):  # such as a damaged photo
                self._give_back(preparer)
            elif preparer is not None:
                preparer.close()  # its state is unknown
            raise
        if preparer is not None:
            self._give_back(preparer)

    def close(self) -> None:
        """Closes the idle preparers, and those in use once they are returned."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for preparer in idle:
            preparer.close()

    def _take(self, rows: int) -> Preparer | None:
        with self._lock:
            for preparer in self._idle:
                if preparer.rows >= rows:
                    self._idle.remove(preparer)
                    return preparer
        if self.missing:
            return None
        try:
            return Preparer(self._session, self._preprocess, rows)
        except MissingPackageError as error:
            self.missing = error.message
            return None

    def _give_back(self, preparer: Preparer) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(preparer)
                return
        preparer.close()


def _by_pillow(file: JpegFile) -> Pixels:
    return np.asarray(open_photo(io.BytesIO(bytes(file.data))))


def _groups(photos: Sequence[Photo], most: int) -> Iterator[range]:
    """Yields ranges of consecutive photos whose pixels fit in ``most`` bytes together."""
    start, size = 0, 0
    for number, photo in enumerate(photos):
        if size and size + photo.decoded_bytes > most:
            yield range(start, number)
            start, size = number, 0
        size += photo.decoded_bytes
    if start < len(photos):
        yield range(start, len(photos))


def _sources(photo: Photo, pixels: PixelsOnGpu) -> list[Source]:
    """Returns one source per crop of a photo in the GPU's memory."""
    if not photo.crops:
        return [Source(*pixels, photo.row, fitted=photo.fitted)]
    return [
        Source(
            address=pixels.address + crop.top * pixels.pitch + 3 * crop.left,
            pitch=pixels.pitch,
            width=crop.width,
            height=crop.height,
            flip=crop.flip,
            row=photo.row + number,
            fitted=photo.fitted,
        )
        for number, crop in enumerate(photo.crops)
    ]
