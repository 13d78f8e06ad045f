"""Which JPEG files the GPU's decoder gets."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoo.caft.read_process import decodable
from zoo.inference.gpu.jpeg import JpegSize, plain_headers, plain_jpeg

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (51, 70, 3), dtype=np.uint8))
EXIF = Image.Exif()
EXIF[0x0112] = 6


def jpeg(photo: Image.Image = PHOTO, **options: Any) -> bytes:
    data = io.BytesIO()
    photo.save(data, "JPEG", **options)
    return data.getvalue()


PLAIN = jpeg()


@pytest.mark.parametrize(
    "data",
    [
        PLAIN, jpeg(subsampling=0), jpeg(subsampling=1), jpeg(subsampling=2), jpeg(optimize=True),
        jpeg(PHOTO.convert("L")), jpeg(restart_marker_blocks=2), jpeg(exif=EXIF, quality=100),
        jpeg(icc_profile=bytes(70_000), comment=b"\xff\xd9\xff\xda"),
    ],
)  # fmt: skip
def test_common_files(data: bytes) -> None:
    assert plain_jpeg(data) == JpegSize(70, 51)


def test_where_the_scan_begins() -> None:
    turned, profile = jpeg(exif=EXIF, icc_profile=bytes(70_000)), jpeg(comment=b"Exif\0\0")
    for data in (PLAIN, turned, profile):
        headers = plain_headers(memoryview(data))
        assert headers is not None
        assert data[headers.end : headers.end + 2] == b"\xff\xda"
        assert data.count(b"\xff\xda", 0, headers.end) == 0
    in_scan = PLAIN[:-2] + b"Exif\0\0" + PLAIN[-2:]
    assert decodable(in_scan, "apply") == decodable(profile, "apply") == JpegSize(70, 51)
    assert decodable(turned, "apply") is None


def png() -> bytes:
    data = io.BytesIO()
    PHOTO.save(data, "PNG")
    return data.getvalue()


def with_frame(place: int, value: int) -> bytes:
    """The file with a byte of its frame header changed; 0 is the precision."""
    start = PLAIN.index(b"\xff\xc0") + 4
    return PLAIN[: start + place] + bytes([value]) + PLAIN[start + place + 1 :]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", png(), jpeg(progressive=True),
        jpeg(PHOTO.convert("CMYK")), jpeg(keep_rgb=True), PLAIN[:-2], PLAIN[:-1], PLAIN + b"\0",
        PLAIN[: PLAIN.index(b"\xff\xda")] + b"\xff\xd9", PLAIN[:30] + b"\xff\xd9",
        with_frame(0, 12), with_frame(1, 0) and with_frame(2, 0), with_frame(7, 0x41),
        jpeg(Image.new("RGB", (700, 6))),
    ],
)  # fmt: skip
def test_all_other_files_go_to_pillow(data: bytes) -> None:
    assert plain_jpeg(data) is None


def test_every_truncation_and_most_damage_to_headers_is_noticed() -> None:
    assert [end for end in range(len(PLAIN)) if plain_jpeg(PLAIN[:end])] == []
    scan = PLAIN.index(b"\xff\xda")
    random = np.random.default_rng(1)
    for _ in range(500):  # whatever it is, it is a size or nothing, never an exception
        damaged = bytearray(PLAIN)
        damaged[random.integers(2, scan)] = random.integers(256)
        plain_jpeg(bytes(damaged))
