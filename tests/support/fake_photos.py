"""Photo preparation on the fake GPU: the kernels on the CPU, and a JPEG decoder that is Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.cuda_on_cpu import CpuKernels
from support.fake_gpu import Buffer, FakeGpu, Stream
from zoo.caft.file_reader import FileReaders
from zoo.inference.gpu import preparer
from zoo.inference.gpu.decoder import PixelsOnGpu
from zoo.inference.gpu.jpeg import JpegFile
from zoo.inference.gpu.views import Views
from zoo.schema.manifest import Preprocess
from zoo.util.errors import RunError


class FakeKernels:
    """Runs when its stream does, on what the GPU's memory holds then."""

    def __init__(
        self, gpu: FakeGpu, preprocess: Preprocess, image_type: np.dtype[Any], stream: Stream
    ) -> None:
        self._gpu = gpu
        self._pixels = preprocess.height * preprocess.width
        self._cpu = CpuKernels(preprocess, image_type)
        self._itemsize = image_type.itemsize

    def prepare(self, views: Views, images: int, stream: Stream) -> None:
        def run() -> None:
            records = views.records.copy()
            for record in records:
                size = record["pitch"] * (record["height"] - 1) + 3 * record["width"]
                record["source"] = self._gpu.at(int(record["source"]), int(size)).ctypes.data
            rows = int(records["row"].max()) + 1
            batch = self._gpu.at(images, rows * 3 * self._pixels * self._itemsize)
            translated = Views(
                records=records,
                weights=views.weights,
                middle=views.middle,
                most_rows=views.most_rows,
            )
            self._cpu.prepare(translated, batch.ctypes.data, None)

        stream.put(run)

    def close(self) -> None:
        pass


class FakeDecoder:
    """Decodes with Pillow; what it decoded before is overwritten as early as it may be.

    Args:
        gpu: Where the photos go.
        fails: Called with a file: whether it can't be decoded.
        first: Counts the files of this one as well; by default it counts its own.

    Attributes:
        decoded: Number of files that it decoded, and those that it was :meth:`opened` as.
    """

    name = "fake decoder 1.0"

    def __init__(
        self,
        gpu: FakeGpu,
        fails: Any = lambda data: False,
        first: FakeDecoder | None = None,
    ) -> None:
        self._gpu = gpu
        self._fails = fails
        self._first = first or self
        self._held: list[list[Buffer]] = [[], []]
        self.decoded = 0

    def opened(self) -> FakeDecoder:
        """Returns another for a preparer of its own."""
        return FakeDecoder(self._gpu, self._fails, self._first)

    def decode(self, files: Sequence[JpegFile], stream: Stream) -> list[PixelsOnGpu | None]:
        for buffer in self._held.pop(0):
            buffer.data[:] = 0xCD
            buffer.freed = True
        self._held.append([])
        contents = [bytes(file.data) for file in files]
        return [None if self._fails(data) else self._decode(data, stream) for data in contents]

    def close(self) -> None:
        for buffer in (buffer for held in self._held for buffer in held):
            buffer.data[:] = 0xCD
            buffer.freed = True

    def _decode(self, data: bytes, stream: Stream) -> PixelsOnGpu:
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        pitch = 3 * pixels.shape[1] + 5  # rows are padded
        padded = np.full((pixels.shape[0], pitch), 0xEE, np.uint8)
        padded[:, : 3 * pixels.shape[1]] = pixels.reshape(len(pixels), -1)
        buffer = self._gpu.allocate(padded.size)
        stream.put(lambda: buffer.data.__setitem__(slice(None), padded.reshape(-1)))
        self._held[-1].append(buffer)
        with self._gpu.lock:
            self._first.decoded += 1
        return PixelsOnGpu(
            address=buffer.handle, pitch=pitch, width=pixels.shape[1], height=pixels.shape[0]
        )


def use_fakes(patch: pytest.MonkeyPatch, gpu: FakeGpu, decoder: FakeDecoder | None = None) -> None:
    """Has photos prepared on a fake GPU; without a decoder, its hardware has none."""

    def open_decoder(device: Any, stream: Any) -> FakeDecoder:
        if decoder is None:
            raise RunError("the GPU has no JPEG decoder")
        return decoder.opened()

    patch.setattr(preparer, "CudaKernels", FakeKernels)
    patch.setattr(preparer, "HardwareDecoder", open_decoder)


def read_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has processes read the files of a pass from the first on, where there are such processes."""
    read = FileReaders.read

    def wait_and_read(readers: FileReaders, files: Any) -> Any:
        readers._ready.wait()
        return read(readers, files)

    monkeypatch.setattr(FileReaders, "read", wait_and_read)
