"""Runs the CUDA kernels of the photo preparation on the CPU: the same source, through g++."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from zoo.inference.crop import border_colour
from zoo.inference.gpu.kernels import source
from zoo.inference.gpu.views import FILTERS, Views
from zoo.schema.manifest import Preprocess

_STANDS_IN = """
#include <cmath>
#define __device__ static
#define __global__
using std::sin;
struct Dim { int x, y, z; };
static thread_local Dim blockIdx, blockDim, threadIdx;
static void store(float* target, float value) { *target = value; }
static void store(unsigned short* target, float value) {
    _Float16 half = (_Float16)value;
    __builtin_memcpy(target, &half, 2);
}
"""

_DRIVER = """
// Each loop runs the threads of a kernel one after the other.
#define RUN(width, height, depth, call)                                 \\
    for (blockIdx.z = 0; blockIdx.z < (depth); blockIdx.z++)            \\
        for (blockIdx.y = 0; blockIdx.y < (height); blockIdx.y++)       \\
            for (blockIdx.x = 0; blockIdx.x < (width); blockIdx.x++) call

extern "C" void run(const View* views, int count, int most_rows, int width, int height, int border,
                    int filter, Window* windows, int* weights, unsigned char* middle, void* images,
                    int half, const float* scale, const float* offset) {
    blockDim = Dim{1, 1, 1};
    const int longer = width > height ? width : height;
    RUN(longer, 2, count, compute_weights(views, windows, weights, width, height, filter));
    RUN(width, most_rows, count, resize_rows(views, windows, weights, middle, width, height));
    if (half)
        RUN(width, height, count,
            resize_columns_half(views, windows, weights, middle, (unsigned short*)images, width,
                                height, border, scale, offset));
    else
        RUN(width, height, count,
            resize_columns_float(views, windows, weights, middle, (float*)images, width, height,
                                 border, scale, offset));
}
"""


def compiler() -> str | None:
    """Returns a C++ compiler, None if there is none."""
    return shutil.which("g++")


@cache
def _library() -> ctypes.CDLL:
    folder = Path(mkdtemp(prefix="cuda-on-cpu-"))
    code, library = folder / "prepare.cpp", folder / "prepare.so"
    code.write_text(_STANDS_IN + source() + _DRIVER)
    gxx = compiler()
    assert gxx is not None
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Werror"]
    subprocess.run([gxx, *flags, str(code), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


class CpuKernels:
    """:class:`~zoo.inference.gpu.kernels.Kernels` whose addresses are those of the host."""

    def __init__(self, preprocess: Preprocess, image_type: np.dtype[Any]) -> None:
        self._preprocess = preprocess
        self._half = image_type == np.float16

    def prepare(self, views: Views, images: int, stream: Any) -> None:
        """Prepares views at once."""
        width, height = self._preprocess.width, self._preprocess.height
        red, green, blue = border_colour(self._preprocess)
        count = len(views.records)
        mean = np.asarray(self._preprocess.mean, np.float32)
        std = np.asarray(self._preprocess.std, np.float32)
        scale = (1 / (255 * std)).astype(np.float32)
        offset = (mean / std).astype(np.float32)
        # Filled, so that an element that no thread writes shows.
        windows = np.full((count, width + height, 2), -1, np.int32)
        weights = np.full(views.weights, 1 << 30, np.int32)
        middle = np.full(views.middle, 77, np.uint8)
        _library().run(
            _at(views.records), count, views.most_rows, width, height,
            red << 16 | green << 8 | blue,
            FILTERS[self._preprocess.interpolation], _at(windows), _at(weights), _at(middle),
            ctypes.c_void_p(images), int(self._half), _at(scale), _at(offset),
        )  # fmt: skip

    def close(self) -> None:
        """Nothing to free."""


def _at(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
