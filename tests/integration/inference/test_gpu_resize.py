"""The resize kernels, compiled for the CPU, against Pillow; and by CUDA's compiler for the GPUs."""

from __future__ import annotations

import shutil
from importlib import util
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.cuda_on_cpu import CpuKernels

from zoo.inference.crop import Crop
from zoo.inference.gpu.kernels import source
from zoo.inference.gpu.views import Source, views_of
from zoo.inference.preprocess import batch_of, fit
from zoo.schema.manifest import CropMode, InputSize, Interpolation, Preprocess

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SIZES = [
    (500, 375), (375, 500), (1, 1), (7, 5), (1000, 13), (13, 1000), (224, 224), (256, 256),
    (255, 257), (1999, 1501), (640, 427), (31, 29),
]  # fmt: skip


def preprocess(**changes: Any) -> Preprocess:
    values = {"input_size": 224, "crop": 0.875, "interpolation": "bicubic", **IMAGENET}
    return Preprocess.model_construct(**{**values, **changes})


def noise(width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    random = np.random.default_rng(width * 10_000 + height)
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def source_of(pixels: np.ndarray[Any, Any], row: int = 0, crop: Crop | None = None) -> Source:
    height, width, _ = pixels.shape
    crop = crop or Crop(0, 0, width, height)
    address = pixels.ctypes.data + crop.top * pixels.strides[0] + 3 * crop.left
    return Source(address, pixels.strides[0], crop.width, crop.height, row, crop.flip)


def prepared(sources: list[Source], how: Preprocess, dtype: Any = np.float32) -> Any:
    batch = np.full((len(sources), 3, how.height, how.width), np.nan, dtype)
    CpuKernels(how, np.dtype(dtype)).prepare(views_of(sources, how), batch.ctypes.data, None)
    return batch


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("side", "crop"), [(224, 0.875), (224, 1.0), (96, 0.9), (33, 0.5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_input_is_that_of_pillow_to_the_bit(
    interpolation: str, side: int, crop: float, dtype: Any
) -> None:
    how = preprocess(interpolation=interpolation, input_size=side, crop=crop)
    photos = [noise(*size) for size in SIZES]
    made = prepared([source_of(photo, row) for row, photo in enumerate(photos)], how, dtype)
    expected = batch_of([Image.fromarray(photo) for photo in photos], how).astype(dtype)
    assert np.array_equal(made, expected)


@pytest.mark.parametrize("crop_mode", list(CropMode))
@pytest.mark.parametrize("size", [96, (96, 64), (64, 97)])
@pytest.mark.parametrize("crop", [1.0, 0.9, 1.15])
def test_every_crop_mode_is_that_of_pillow_to_the_bit(
    crop_mode: CropMode, size: InputSize, crop: float
) -> None:
    how = preprocess(crop_mode=crop_mode, input_size=size, crop=crop, interpolation="lanczos")
    photos = [noise(*size) for size in [*SIZES, (600, 200), (200, 600), (97, 300)]]
    made = prepared([source_of(photo, row) for row, photo in enumerate(photos)], how)
    expected = batch_of([Image.fromarray(photo) for photo in photos], how)
    assert np.array_equal(made, expected)
    fitted = [fit(Image.fromarray(photo), how) for photo in photos]  # decoded by Pillow
    sources = [source_of(p, row)._replace(fitted=True) for row, p in enumerate(fitted)]
    assert np.array_equal(prepared(sources, how), expected)


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 900), height=st.integers(1, 900),
    size=st.integers(32, 130) | st.tuples(st.integers(32, 130), st.integers(32, 130)),
    crop=st.floats(0.3, 1.3), crop_mode=st.sampled_from(list(CropMode)),
    interpolation=st.sampled_from(list(Interpolation)),
)  # fmt: skip
def test_any_size(
    width: int, height: int, size: InputSize, crop: float, crop_mode: CropMode,
    interpolation: Interpolation,
) -> None:  # fmt: skip
    how = preprocess(interpolation=interpolation, input_size=size, crop=crop, crop_mode=crop_mode)
    photo = noise(width, height)
    made = prepared([source_of(photo)], how)
    assert np.array_equal(made, batch_of([Image.fromarray(photo)], how))


def test_the_filter_that_no_manifest_can_name() -> None:
    name = "box"
    how = preprocess(interpolation=name, crop=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    for width, height in ((500, 500), (97, 97), (224, 224)):
        photo = noise(width, height)
        made = prepared([source_of(photo)], how)[0]
        resized = Image.fromarray(photo).resize((224, 224), Image.Resampling[name.upper()])
        assert np.array_equal(np.rint(made * 255), np.asarray(resized).transpose(2, 0, 1))


@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_reads_nothing_outside_itself(flip: bool) -> None:
    how, photo = preprocess(input_size=64), noise(300, 200)
    crop = Crop(31, 17, 150, 101, flip)
    inside = photo[17 : 17 + 101, 31 : 31 + 150]
    expected = batch_of([Image.fromarray(inside[:, ::-1] if flip else inside)], how)
    assert np.array_equal(prepared([source_of(photo, crop=crop)], how), expected)


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_120"])
def test_cuda_compiles_the_kernels(arch: str) -> None:
    pytest.importorskip("cuda.core", reason="no cuda-core")
    if util.find_spec("nvidia") is None or not _has_nvrtc():
        pytest.skip("no run-time compiler (pip package nvidia-cuda-nvrtc)")
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(std="c++17", arch=arch, fma=False)
    module = Program(source(), "c++", options).compile("cubin")
    for kernel in (b"compute_weights", b"resize_rows", b"resize_columns_half"):
        assert kernel in bytes(module.code)


def _has_nvrtc() -> bool:
    from cuda.pathfinder import load_nvidia_dynamic_lib

    try:
        load_nvidia_dynamic_lib("nvrtc")
    except Exception:
        return False
    return True
