"""Decodes JPEG files with the GPU's hardware decoder, through nvImageCodec."""

from __future__ import annotations

import ctypes
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.inference.gpu.packages import CODEC
from zoo.util.errors import MissingPackageError, RunError

if TYPE_CHECKING:
    from cuda.core import Device, Stream

Encoded = bytes | npt.NDArray[np.uint8]
"""Content of a file."""

_EXTENSION = "libnvjpeg_ext.so*"
_THREADS = 4
"""Threads of the host that parse files; by default there is one per core, which is slower."""

_HELD = 2
"""Number of results whose memory is kept: one is resized while the next is decoded."""

_MOST_LEVELS = 1
"""Largest accepted difference from Pillow's pixels; the two decoders round differently."""


@dataclass(frozen=True, kw_only=True)
class PixelsOnGpu:
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

    def decode(self, files: Sequence[Encoded], stream: Stream) -> list[PixelsOnGpu | None]:
        """Decodes files.

        Args:
            files: JPEG files that :func:`zoo.inference.gpu.jpeg.plain_jpeg` accepts.
            stream: Stream that orders the decoded photos. They stay valid until the second call
                after this one.

        Returns:
            One photo per file, None for a file that can't be decoded.
        """
        ...

    def close(self) -> None:
        """Frees its memory; call it before closing the streams that it used."""
        ...


class HardwareDecoder:
    """The GPU's hardware JPEG decoder, which runs in parallel with its multiprocessors.

    Args:
        device: The GPU.
        stream: A stream of the GPU, for the self-test.

    Raises:
        MissingPackageError: nvImageCodec is not installed or can't be loaded.
        RunError: The GPU has no such decoder, or a test image differs from Pillow's result.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        codec = _import_codec()
        self._codec = codec
        self._params = codec.DecodeParams(apply_exif_orientation=False)
        self._held: list[list[Any]] = [[] for _ in range(_HELD)]
        try:
            hardware = codec.Backend(codec.BackendKind.HW_GPU_ONLY)
            self._decoder = codec.Decoder(
                device_id=device.device_id, max_num_cpu_threads=_THREADS, backends=[hardware]
            )
        except Exception as error:  # pybind11 raises RuntimeError and others
            raise RunError(f"the GPU has no JPEG decoder: {error}") from error
        self._test(stream)

    @property
    def name(self) -> str:
        """See :attr:`JpegDecoder.name`."""
        return f"nvImageCodec {metadata.version(CODEC)}, hardware"

    def decode(self, files: Sequence[Encoded], stream: Stream) -> list[PixelsOnGpu | None]:
        """See :meth:`JpegDecoder.decode`."""
        reused = self._held.pop(0)
        streams = [self._codec.CodeStream(data) for data in files]
        images: list[Any] = []
        handle = int(stream.handle)
        if common := min(len(reused), len(streams)):
            images = self._decoder.decode(
                streams[:common], images=reused[:common], params=self._params, cuda_stream=handle
            )
        if len(streams) > common:
            images += self._decoder.decode(
                streams[common:], params=self._params, cuda_stream=handle
            )
        # Unused images are kept for later calls; those of failed files are dropped.
        self._held.append([image for image in images if image is not None] + reused[common:])
        return [None if image is None else _decoded(image) for image in images]

    def close(self) -> None:
        """See :meth:`JpegDecoder.close`."""
        self._held = [[] for _ in range(_HELD)]
        self._decoder = None

    def _test(self, stream: Stream) -> None:
        """Decodes a test image and compares it with Pillow's result."""
        data = _test_image()
        decoded, *_ = self._decoder.decode(
            [self._codec.CodeStream(data)], params=self._params, cuda_stream=int(stream.handle)
        )
        if decoded is None:
            raise RunError("the GPU has no JPEG decoder")
        stream.sync()
        pixels = np.asarray(decoded.cpu()).astype(np.int16)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)
        del decoded  # its memory is freed in the order of the stream
        if pixels.shape != expected.shape or np.abs(pixels - expected).max() > _MOST_LEVELS:
            raise RunError("the GPU's JPEG decoder returns other pixels than Pillow")


def _decoded(image: Any) -> PixelsOnGpu:
    memory = image.__cuda_array_interface__
    height, width, _ = memory["shape"]
    pitch = memory["strides"][0] if memory["strides"] else 3 * width
    return PixelsOnGpu(address=memory["data"][0], pitch=pitch, width=width, height=height)


def _test_image() -> bytes:
    """Returns a JPEG file with colour gradients, sharp edges and subsampled chroma."""
    y, x = np.mgrid[0:48, 0:80]
    planes = (3 * x, 5 * y, 255 * ((x // 8 + y // 8) % 2))
    data = io.BytesIO()
    Image.fromarray(np.stack(planes, axis=2).astype(np.uint8)).save(data, "JPEG", quality=90)
    return data.getvalue()


@cache
def _import_codec() -> Any:
    """Imports nvImageCodec with only its JPEG extension; others warn of missing libraries."""
    spec = util.find_spec("nvidia.nvimgcodec") if util.find_spec("nvidia") else None
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            "nvImageCodec is not installed", hint="pip install 'caft-zoo[gpu-decode]'"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    try:
        ctypes.CDLL(str(next(_nvjpeg(folder))), mode=ctypes.RTLD_GLOBAL)
        with _only(folder / "extensions", _EXTENSION):
            nvimgcodec = import_module("nvidia.nvimgcodec")
    except (ImportError, OSError, StopIteration) as error:
        reason = "nvJPEG is not installed" if isinstance(error, StopIteration) else error
        raise MissingPackageError(
            f"nvImageCodec can't be loaded: {reason}", hint="pip install 'caft-zoo[gpu-decode]'"
        ) from error
    return nvimgcodec


def _nvjpeg(codec: Path) -> Iterator[Path]:
    """Yields nvJPEG's library files, which nvImageCodec does not find where its wheel puts them."""
    for folder in {codec.parent, *map(Path, import_module("nvidia").__path__)}:
        yield from sorted(folder.glob("cu*/lib/libnvjpeg.so.*"))
        yield from sorted(folder.glob("nvjpeg/lib/libnvjpeg.so.*"))


@contextmanager
def _only(extensions: Path, pattern: str) -> Iterator[None]:
    """Limits the extensions that nvImageCodec loads, unless the user has chosen them."""
    name = "NVIMGCODEC_EXTENSIONS_PATH"
    if name in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        for extension in extensions.glob(pattern):
            (Path(folder) / extension.name).symlink_to(extension)
        os.environ[name] = folder
        try:
            yield
        finally:
            del os.environ[name]
