"""Photos on a real GPU: its JPEG decoder and the resize kernels against Pillow.

Needs an NVIDIA GPU and ``caft-zoo[gpu-decode]``, no TensorRT.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.records import small_preprocess

from zoo.cli.doctor import package_version
from zoo.client.host import local_archs
from zoo.inference.crop import Crop
from zoo.inference.gpu.decoder import HardwareDecoder, PixelsOnGpu
from zoo.inference.gpu.jpeg import JpegFile, JpegSize, plain_jpeg
from zoo.inference.gpu.packages import GPU_PACKAGES
from zoo.inference.gpu.preparer import Photo, Preparer
from zoo.inference.preprocess import batch_of
from zoo.runtime import cuda
from zoo.schema.manifest import Preprocess
from zoo.util.errors import RunError

pytestmark = pytest.mark.skipif(
    not local_archs() or any(package_version(package) is None for package in GPU_PACKAGES[:1]),
    reason="no NVIDIA GPU with caft-zoo[gpu-decode]",
)

LEVELS = 2.2 / 255
"""Most that prepared photos may differ: decoded pixels differ by one level, which a bicubic resize
may double, and float16 rounds."""
SIZES = [(500, 375), (375, 500), (64, 48), (7, 5), (1, 1), (1999, 1501), (333, 251), (4000, 3000)]
PREPROCESS = small_preprocess(input_size=224, crop=0.875, mean=(0, 0, 0), std=(1, 1, 1))


def photo(width: int, height: int) -> Image.Image:
    """Soft colours with hard edges, of any size."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (128 + 90 * np.sin(x / 17), 128 + 90 * np.cos(y / 23), 255 * ((x // 37 + y // 29) % 2))
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


@pytest.fixture(params=[np.float32, np.float16])
def preparer(request: pytest.FixtureRequest) -> Iterator[Preparer]:
    yield from opened(PREPROCESS, request.param)


def opened(preprocess: Preprocess, dtype: Any) -> Iterator[Preparer]:
    session: Any = SimpleNamespace(device=cuda.open_device(), image_type=np.dtype(dtype))
    preparer = Preparer(session, preprocess, 32)
    preparer.dtype = dtype  # type: ignore[attr-defined]
    yield preparer
    preparer.close()


def prepared(preparer: Preparer, photos: list[Photo], rows: int) -> Any:
    made = preparer.prepare(photos, rows)
    assert made.failed == {}
    return fetched(preparer, made.images)


def fetched(preparer: Preparer, images: cuda.DeviceBatch) -> Any:
    from cuda.bindings import driver

    images.ready.sync()
    host = np.empty((images.rows, 3, 224, 224), preparer.dtype)  # type: ignore[attr-defined]
    cuda.check(driver.cuMemcpyDtoH(host.ctypes.data, images.address, host.nbytes))
    return host


def pixels_at(decoded: PixelsOnGpu, preparer: Preparer) -> Any:
    from cuda.bindings import driver

    preparer._stream.sync()
    rows = np.empty((decoded.height, decoded.pitch), np.uint8)
    for number, row in enumerate(rows):
        size = 3 * decoded.width  # the last row may end there
        address = decoded.address + number * decoded.pitch
        cuda.check(driver.cuMemcpyDtoH(row.ctypes.data, address, size))
    return rows[:, : 3 * decoded.width].reshape(decoded.height, decoded.width, 3)


def test_pixels_of_any_size_are_those_of_pillow_to_the_bit(preparer: Preparer) -> None:
    pictures = [photo(*size) for size in SIZES]
    made = prepared(
        preparer,
        [Photo(source=np.asarray(picture), row=row) for row, picture in enumerate(pictures)],
        len(pictures),
    )
    assert np.array_equal(made, batch_of(pictures, PREPROCESS).astype(made.dtype))


def test_a_stack_is_those_of_pillow_to_the_bit(preparer: Preparer) -> None:
    random = np.random.default_rng(0)
    stack = random.integers(0, 256, (32, 300, 257, 3), dtype=np.uint8)  # more than one copy
    made = fetched(preparer, preparer.prepare_stack(stack))
    expected = batch_of([Image.fromarray(pixels) for pixels in stack], PREPROCESS)
    assert np.array_equal(made, expected.astype(made.dtype))


@pytest.mark.parametrize(
    "options",
    [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"quality": 10}, {"quality": 100},
     {"optimize": True}, {"restart_marker_blocks": 4}, {"grey": True}],
)  # fmt: skip
def test_jpeg_files_differ_by_one_level_at_most(preparer: Preparer, options: Any) -> None:
    if preparer.decoder is None:
        pytest.skip(preparer.without_decoder)
    grey = options.pop("grey", False)
    pictures = [photo(*size).convert("L" if grey else "RGB") for size in SIZES]
    files = [jpeg(picture, **options) for picture in pictures]
    photos = []
    for row, data in enumerate(files):
        size = plain_jpeg(data)
        assert size is not None
        photos.append(Photo(source=JpegFile(data, size), row=row))
    jpegs = [photo.source for photo in photos if isinstance(photo.source, JpegFile)]
    for decoded, data in zip(preparer.decoder.decode(jpegs, preparer._stream), files, strict=True):
        assert decoded is not None  # the hardware took all of them
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)
        assert np.abs(pixels_at(decoded, preparer).astype(np.int16) - expected).max() <= 1
    for _ in range(3):  # memory is used again
        made = prepared(preparer, photos, len(photos)).astype(np.float32)
        wanted = batch_of([Image.open(io.BytesIO(data)) for data in files], PREPROCESS)
        assert np.abs(made - wanted).max() <= LEVELS


def test_views_of_jpeg_files(preparer: Preparer) -> None:
    if preparer.decoder is None:
        pytest.skip(preparer.without_decoder)
    data = jpeg(photo(640, 480))
    size = plain_jpeg(data)
    assert size is not None
    crops = (Crop(0, 0, 640, 480), Crop(31, 17, 300, 222, flip=True), Crop(201, 100, 439, 380))
    photos = [Photo(source=JpegFile(data, size), row=0, crops=crops)]
    made = prepared(preparer, photos, 3).astype(np.float32)
    whole = np.asarray(Image.open(io.BytesIO(data)))
    pictures = [
        Image.fromarray(np.ascontiguousarray(part[:, ::-1] if crop.flip else part))
        for crop in crops
        for part in [whole[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]]
    ]
    assert np.abs(made - batch_of(pictures, PREPROCESS)).max() <= LEVELS


def test_what_the_hardware_refuses_goes_to_pillow_and_says_why(preparer: Preparer) -> None:
    if preparer.decoder is None:
        pytest.skip(preparer.without_decoder)
    whole = jpeg(photo(500, 375))
    size = plain_jpeg(whole)
    assert size is not None
    progressive = jpeg(photo(500, 375), progressive=True)
    made = preparer.prepare(
        [
            Photo(source=JpegFile(progressive, size), row=0),
            Photo(source=JpegFile(whole[:200], size), row=1),
            Photo(source=JpegFile(whole, size), row=2),
        ],
        3,
    )
    assert list(made.failed) == [1]
    rows = fetched(preparer, made.images).astype(np.float32)
    expected = batch_of([Image.open(io.BytesIO(data)) for data in (progressive, whole)], PREPROCESS)
    assert np.abs(rows[[0, 2]] - expected).max() <= LEVELS
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("bad", [[0], [13], [39], [0, 1, 20, 38, 39], list(range(40))])
def test_bad_files_leave_the_others_of_their_batch_alone(preparer: Preparer, bad: Any) -> None:
    if preparer.decoder is None:
        pytest.skip(preparer.without_decoder)
    files = []
    for number in range(40):
        data = jpeg(photo(200 + number, 150 + number))
        size = plain_jpeg(data)
        assert size is not None
        files.append(JpegFile(data[:300] if number in bad else data, size))
    for _ in range(3):
        decoded = preparer.decoder.decode(files, preparer._stream)
        assert [number for number, each in enumerate(decoded) if each is None] == bad
        for number in {7, 30} - set(bad):
            each = decoded[number]
            assert each is not None
            expected = np.asarray(Image.open(io.BytesIO(files[number].data)).convert("RGB"))
            found = pixels_at(each, preparer).astype(np.int16)
            assert np.abs(found - expected.astype(np.int16)).max() <= 1


def test_another_size_than_the_files_is_not_decoded(preparer: Preparer) -> None:
    if preparer.decoder is None:
        pytest.skip(preparer.without_decoder)
    data = jpeg(photo(64, 48))
    files = [JpegFile(data, JpegSize(32, 48)), JpegFile(data, JpegSize(64, 48))]
    smaller, right = preparer.decoder.decode(files, preparer._stream)
    assert smaller is None
    assert right is not None


def test_a_decoder_with_other_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.inference.gpu import decoder

    device = cuda.open_device()
    monkeypatch.setattr(decoder, "_MOST_LEVELS", -1)
    with pytest.raises(RunError) as refused:
        HardwareDecoder(device, device.create_stream())
    assert "decoder" in refused.value.message
