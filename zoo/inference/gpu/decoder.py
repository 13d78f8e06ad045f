"""Decodes JPEG files with the GPU's hardware decoder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.inference.gpu.jpeg import JpegFile, plain_jpeg
from zoo.inference.gpu.nvjpeg import IMAGE, NvJpeg, NvJpegError
from zoo.runtime import cuda
from zoo.util.errors import RunError

if TYPE_CHECKING:
    from cuda.core import Buffer, Device, Event, Stream

_PLACES = 2
"""Batches in memory: one is resized while the next is decoded."""

_ALIGNMENT = 256
"""Alignment in bytes of each photo."""

_MOST_LEVELS = 1
"""Largest accepted difference from Pillow's pixels; the two decoders round differently."""


class PixelsOnGpu(NamedTuple):
    """A photo in the GPU's memory: RGB, 8 bits a channel.

    Attributes:
        address: Address of the first pixel.
        pitch: Bytes between the starts of consecutive rows.
        width: Width in pixels.
        height: Height in pixels.
    """

    address: int
    pitch: int
    width: int
    height: int


class JpegDecoder(Protocol):
    """Decodes JPEG files on the GPU."""

    @property
    def name(self) -> str:
        """Name and version of the decoder."""
        ...

    def decode(self, files: Sequence[JpegFile], stream: Stream) -> list[PixelsOnGpu | None]:
        """Decodes files.

        Args:
            files: At least one file.
            stream: Stream that orders the decoded photos. They stay valid until the second call
                after this one.

        Returns:
            One photo per file, None for a file that can't be decoded.
        """
        ...

    def close(self) -> None:
        """Frees its memory; call it before closing the streams that it used."""
        ...


@dataclass(kw_only=True)
class _Place:
    """Memory of the GPU for the photos of a batch, which is used again.

    Attributes:
        buffer: The memory, None before the first batch.
        size: Its size in bytes.
        decoded: When the last batch was decoded.
    """

    buffer: Buffer | None = None
    size: int = 0
    decoded: Event | None = None


class HardwareDecoder:
    """The GPU's hardware JPEG decoder, which runs in parallel with its multiprocessors.

    Args:
        device: The GPU, current in this thread.
        stream: A stream of the GPU, for the self-test.

    Raises:
        MissingPackageError: nvJPEG is not installed or can't be loaded.
        RunError: The GPU has no such decoder, or a test image differs from Pillow's result.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        self._device = device
        self._places = [_Place() for _ in range(_PLACES)]
        self._turn = 0
        try:
            self._library = NvJpeg(_PLACES)
        except NvJpegError as error:
            raise RunError(f"the GPU has no JPEG decoder: {error.message}") from error
        self._version = self._library.version
        try:
            self._test(stream)
        except RunError:
            self.close()
            raise

    @property
    def name(self) -> str:
        """See :attr:`JpegDecoder.name`."""
        return f"nvJPEG {self._version}, hardware"

    def decode(self, files: Sequence[JpegFile], stream: Stream) -> list[PixelsOnGpu | None]:
        """See :meth:`JpegDecoder.decode`."""
        self._turn = (self._turn + 1) % _PLACES
        addresses = [file.address or _address_of(file.data) for file in files]
        lengths = [len(file.data) for file in files]
        sizes = [file.size for file in files]
        # Where its header may be read in two ways, the library would write beyond its place.
        found = list(map(self._library.size_of, addresses, lengths))
        taken = [number for number, size in enumerate(sizes) if found[number] == size]
        result: list[PixelsOnGpu | None] = [None] * len(files)
        if not taken:
            return result
        width, height = np.array([sizes[number] for number in taken], np.int64).T
        images = self._images(width, height, stream)
        good = self._decode(
            np.array([addresses[number] for number in taken], np.uint64),
            np.array([lengths[number] for number in taken], np.uint64),
            images,
            stream,
        )
        starts = images["channel"][:, 0].tolist()
        for number, start, fine in zip(taken, starts, good.tolist(), strict=True):
            if fine:
                result[number] = _pixels(files[number], start)
        return result

    def close(self) -> None:
        """See :meth:`JpegDecoder.close`."""
        for place in self._places:
            if place.decoded is not None:
                place.decoded.sync()
            if place.buffer is not None:
                place.buffer.close()
        self._places = [_Place() for _ in range(_PLACES)]
        self._library.close()

    def _images(
        self, width: npt.NDArray[np.int64], height: npt.NDArray[np.int64], stream: Stream
    ) -> npt.NDArray[np.void]:
        """Returns where photos of some sizes go, of type :data:`zoo.inference.gpu.nvjpeg.IMAGE`."""
        room = -(-3 * width * height // _ALIGNMENT) * _ALIGNMENT
        size, place = int(room.sum()), self._places[self._turn]
        if place.buffer is None or place.size < size:
            if place.buffer is not None:
                place.buffer.close(stream)
            place.buffer, place.size = self._device.allocate(size, stream=stream), size
        images = np.zeros(len(room), IMAGE)
        images["channel"][:, 0] = int(place.buffer.handle) + np.cumsum(room) - room
        images["pitch"][:, 0] = 3 * width
        return images

    def _decode(
        self,
        files: npt.NDArray[np.uint64],
        sizes: npt.NDArray[np.uint64],
        images: npt.NDArray[np.void],
        stream: Stream,
    ) -> npt.NDArray[np.bool_]:
        """Decodes files into the current place; returns which were decoded.

        The library refuses a batch with a single bad file, so that it is halved until that one is
        found.
        """
        place = self._places[self._turn]
        if place.decoded is not None:
            place.decoded.sync()  # the library's memory of this place is used again
        try:
            self._library.decode(self._turn, files, sizes, images, stream)
        except NvJpegError:
            stream.sync()
            if len(files) == 1:
                return np.zeros(1, np.bool_)
            half = len(files) // 2
            parts = slice(None, half), slice(half, None)
            return np.concatenate(
                [self._decode(files[part], sizes[part], images[part], stream) for part in parts]
            )
        place.decoded = cuda.record(stream)
        return np.ones(len(files), np.bool_)

    def _test(self, stream: Stream) -> None:
        """Decodes a test image and compares it with Pillow's result."""
        data = _test_image()
        size = plain_jpeg(data)
        assert size is not None
        (decoded,) = self.decode([JpegFile(data, size)], stream)
        if decoded is None:
            raise RunError("the GPU has no JPEG decoder")
        pixels: npt.NDArray[Any] = np.empty((size.height, size.width, 3), np.uint8)
        cuda.copy_out(pixels, decoded.address, stream)
        stream.sync()
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)
        if np.abs(pixels.astype(np.int16) - expected).max() > _MOST_LEVELS:
            raise RunError("the GPU's JPEG decoder returns other pixels than Pillow")


def _pixels(file: JpegFile, address: int) -> PixelsOnGpu:
    width, height = file.size
    return PixelsOnGpu(address, 3 * width, width, height)


def _address_of(data: bytes | npt.NDArray[np.uint8]) -> int:
    """Returns where a content begins; it stays there as long as the content lives."""
    address: int = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    return address


def _test_image() -> bytes:
    """Returns a JPEG file with colour gradients, sharp edges and subsampled chroma."""
    y, x = np.mgrid[0:48, 0:80]
    planes = (3 * x, 5 * y, 255 * ((x // 8 + y // 8) % 2))
    data = io.BytesIO()
    Image.fromarray(np.stack(planes, axis=2).astype(np.uint8)).save(data, "JPEG", quality=90)
    return data.getvalue()
