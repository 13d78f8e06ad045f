"""The GPU's JPEG decoder: what it does around nvJPEG, which Pillow stands in for."""

from __future__ import annotations

import ctypes
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.caft import photo
from support.fake_gpu import FakeGpu

from zoo.inference.gpu import decoder
from zoo.inference.gpu.decoder import HardwareDecoder, PixelsOnGpu
from zoo.inference.gpu.jpeg import JpegFile, JpegSize, plain_jpeg
from zoo.inference.gpu.nvjpeg import NvJpegError
from zoo.runtime import cuda
from zoo.util.errors import RunError


class FakeNvJpeg:
    """Decodes with Pillow into a fake GPU; refuses a batch with a truncated file, as nvJPEG does.

    Args:
        gpu: The GPU.
        off: Added to each value, for a decoder that is wrong.
    """

    version = "1.2.3"

    def __init__(self, gpu: FakeGpu, off: int = 0) -> None:
        self._gpu, self._off = gpu, off
        self.batches: list[int] = []
        self.closed = False

    def size_of(self, file: int, size: int) -> tuple[int, int] | None:
        try:
            return Image.open(io.BytesIO(ctypes.string_at(file, size))).size
        except OSError:
            return None

    def decode(self, state: int, files: Any, sizes: Any, images: Any, stream: Any) -> None:
        self.batches.append(len(files))
        contents = [ctypes.string_at(int(f), int(n)) for f, n in zip(files, sizes, strict=True)]
        if not all(content.endswith(b"\xff\xd9") for content in contents):
            raise NvJpegError("nvJPEG: a file is incomplete (nvjpegDecodeBatched)")
        for content, image in zip(contents, images, strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            pixels = np.clip(pixels.astype(int) + self._off, 0, 255).astype(np.uint8)
            assert image["pitch"][0] == 3 * pixels.shape[1]
            address, data = int(image["channel"][0]), pixels.reshape(-1)
            assert address % 256 == 0
            stream.put(lambda a=address, d=data: self._gpu.at(a, d.size).__setitem__(..., d))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(params=[(), (1, 2)], ids=["late", "early"])
def gpu(request: pytest.FixtureRequest) -> FakeGpu:
    return FakeGpu(early=request.param)


def opened(
    gpu: FakeGpu, patch: pytest.MonkeyPatch, off: int = 0
) -> tuple[HardwareDecoder, FakeNvJpeg, Any]:
    library = FakeNvJpeg(gpu, off)
    patch.setattr(decoder, "NvJpeg", lambda states: library)
    patch.setattr(cuda, "copy_out", gpu_copy(gpu))
    stream = gpu.create_stream()
    device: Any = gpu
    return HardwareDecoder(device, stream), library, stream  # type: ignore[arg-type]


def gpu_copy(gpu: FakeGpu) -> Any:
    def copy(target: Any, source: int, stream: Any) -> None:
        stream.put(
            lambda: (
                target.reshape(-1).view(np.uint8).__setitem__(..., gpu.at(source, target.nbytes))
            )
        )

    return copy


def jpeg(number: int, size: tuple[int, int] = (64, 48)) -> JpegFile:
    file = io.BytesIO()
    photo(number, size).save(file, "JPEG")
    found = plain_jpeg(file.getvalue())
    assert found is not None
    return JpegFile(file.getvalue(), found)


def pixels(gpu: FakeGpu, stream: Any, decoded: PixelsOnGpu | None) -> Any:
    assert decoded is not None
    stream.sync()
    data = gpu.at(decoded.address, decoded.pitch * decoded.height)
    return data.copy().reshape(decoded.height, decoded.width, 3)


def wanted(file: JpegFile) -> Any:
    return np.asarray(Image.open(io.BytesIO(bytes(file.data))).convert("RGB"))


def test_photos_of_any_sizes_are_decoded(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _, stream = opened(gpu, monkeypatch)
    files = [jpeg(1), jpeg(2, (7, 5)), jpeg(3, (200, 120))]
    files.append(JpegFile(np.frombuffer(files[0].data, np.uint8), files[0].size))
    for file, decoded in zip(files, made.decode(files, stream), strict=True):
        assert np.array_equal(pixels(gpu, stream, decoded), wanted(file))
    assert made.name == "nvJPEG 1.2.3, hardware"


@pytest.mark.parametrize("bad", [[], [0], [9], [4, 5], [0, 3, 9], list(range(10))])
def test_bad_files_are_found_and_the_others_decoded(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, bad: list[int]
) -> None:
    made, library, stream = opened(gpu, monkeypatch)
    files = [jpeg(number, (40 + number, 30)) for number in range(10)]
    for number in bad:
        files[number] = JpegFile(files[number].data[:-20], files[number].size)
    library.batches.clear()
    for number, decoded in enumerate(made.decode(files, stream)):
        if number in bad:
            assert decoded is None
        else:
            assert np.array_equal(pixels(gpu, stream, decoded), wanted(files[number]))
    assert library.batches[0] == 10
    assert bool(bad) == (len(library.batches) > 1)


def test_another_size_than_the_library_finds_is_not_decoded(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, library, stream = opened(gpu, monkeypatch)
    file = jpeg(1)
    library.batches.clear()
    smaller, right, other = made.decode(
        [JpegFile(file.data, JpegSize(32, 48)), file, JpegFile(b"none", JpegSize(1, 1))], stream
    )
    assert (smaller, other) == (None, None)
    assert np.array_equal(pixels(gpu, stream, right), wanted(file))
    assert library.batches == [1]
    assert made.decode([JpegFile(b"none", JpegSize(1, 1))], stream) == [None]


def test_photos_stay_until_the_second_call_after(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _, stream = opened(gpu, monkeypatch)
    batches = [[jpeg(10 * batch + n, (30 + 9 * batch, 20)) for n in range(3)] for batch in range(5)]
    before: list[PixelsOnGpu | None] = []
    for number, files in enumerate(batches):
        decoded = made.decode(files, stream)
        if number:
            for file, each in zip(batches[number - 1], before, strict=True):
                assert np.array_equal(pixels(gpu, stream, each), wanted(file))
        before = decoded
    held = gpu.held()
    made.decode(batches[0], stream)
    assert gpu.held() == held  # memory is used again
    made.close()
    stream.sync()
    assert gpu.held() == 0


def test_a_decoder_with_other_pixels_is_refused(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opened(gpu, monkeypatch, off=1)[0] is not None
    with pytest.raises(RunError):
        opened(gpu, monkeypatch, off=2)


def test_a_second_frame_is_no_plain_jpeg() -> None:
    data = bytes(jpeg(1).data)
    start = data.index(b"\xff\xc0")
    length = 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    frame = data[start : start + length]
    assert plain_jpeg(data) is not None
    assert plain_jpeg(data[:start] + frame + data[start:]) is None
