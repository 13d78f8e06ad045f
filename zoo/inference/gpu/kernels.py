"""Compiles the kernels of ``prepare.cu`` for the current GPU, and launches them."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Protocol

import numpy as np

from zoo.inference.crop import border_colour
from zoo.inference.gpu.views import FILTERS, VIEW, Views
from zoo.runtime import cuda
from zoo.util.causes import cause_of
from zoo.util.errors import MissingPackageError, RunError

if TYPE_CHECKING:
    from cuda.core import Device, Kernel, ObjectCode, Stream

    from zoo.schema.manifest import Preprocess

_BLOCK = (32, 8)  # threads: 32 neighbours in a row read the same cache lines
_WEIGHTS_BLOCK = 128
_WINDOW_BYTES = 8
_TYPE_NAME = {np.dtype(np.float32): "float", np.dtype(np.float16): "half"}


class Kernels(Protocol):
    """Resizes, crops and normalises photos."""

    def prepare(self, views: Views, images: int, stream: Stream) -> None:
        """Enqueues the preparation of a batch.

        Args:
            views: The views to prepare.
            images: Address of the batch, ``(N, 3, height, width)`` of the engine's input type.
            stream: The stream to enqueue on; it must order the photos' pixels.
        """
        ...

    def close(self) -> None:
        """Frees the memory of the kernels."""
        ...


class CudaKernels:
    """:class:`Kernels` on a GPU.

    Args:
        device: The GPU.
        preprocess: The engine's preprocessing.
        image_type: Type of the engine's input, float32 or float16.
        stream: A stream of the GPU; synchronised before this returns.

    Raises:
        MissingPackageError: The run-time compiler is not installed.
        RunError: The kernels do not compile.
    """

    def __init__(
        self,
        device: Device,
        preprocess: Preprocess,
        image_type: np.dtype[np.generic],
        stream: Stream,
    ) -> None:
        self._device = device
        self._width, self._height = preprocess.width, preprocess.height
        red, green, blue = border_colour(preprocess)
        self._border = red << 16 | green << 8 | blue
        self._filter = FILTERS[preprocess.interpolation]
        names = ("compute_weights", "resize_rows", f"resize_columns_{_TYPE_NAME[image_type]}")
        module = _compile(device)
        self._compute_weights, self._rows, self._columns = map(module.get_kernel, names)
        # (x / 255 - mean) / std, with the rounding of zoo.inference.preprocess.normalise
        mean, std = np.asarray(preprocess.mean, np.float32), np.asarray(preprocess.std, np.float32)
        constants = np.concatenate([1 / (255 * std), mean / std]).astype(np.float32)
        self._constants = device.allocate(constants.nbytes, stream=stream)
        cuda.copy_in(int(self._constants.handle), constants, stream)
        stream.sync()

    def prepare(self, views: Views, images: int, stream: Stream) -> None:
        """See :meth:`Kernels.prepare`."""
        count, width, height = len(views.records), self._width, self._height
        scratch = [
            self._device.allocate(size, stream=stream)
            for size in (
                count * VIEW.itemsize,
                count * (width + height) * _WINDOW_BYTES,
                4 * views.weights,
                views.middle,
            )
        ]
        records, windows, weights, middle = (int(buffer.handle) for buffer in scratch)
        cuda.copy_in(records, views.records, stream)
        size = (np.int32(width), np.int32(height))
        self._launch(
            self._compute_weights,
            (_blocks(max(width, height), _WEIGHTS_BLOCK), 2, count),
            (_WEIGHTS_BLOCK, 1),
            (records, windows, weights, *size, np.int32(self._filter)),
            stream,
        )
        across = _blocks(width, _BLOCK[0])
        self._launch(
            self._rows,
            (across, _blocks(views.most_rows, _BLOCK[1]), count),
            _BLOCK,
            (records, windows, weights, middle, *size),
            stream,
        )
        scale = int(self._constants.handle)
        border = np.int32(self._border)
        self._launch(
            self._columns,
            (across, _blocks(height, _BLOCK[1]), count),
            _BLOCK,
            (records, windows, weights, middle, images, *size, border, scale, scale + 12),
            stream,
        )
        for buffer in scratch:
            buffer.close(stream)

    def close(self) -> None:
        """Frees the constants."""
        self._constants.close()

    def _launch(
        self,
        kernel: Kernel,
        grid: tuple[int, int, int],
        block: tuple[int, int],
        arguments: tuple[int | np.int32, ...],
        stream: Stream,
    ) -> None:
        from cuda.core import LaunchConfig, launch

        launch(stream, LaunchConfig(grid=grid, block=(*block, 1)), kernel, *arguments)


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def source() -> str:
    """Returns the CUDA source of the kernels."""
    return (resources.files("zoo.inference.gpu") / "prepare.cu").read_text("utf-8")


@cache
def _compiled(arch: str) -> ObjectCode:
    """Compiles the kernels for an architecture, once in a process: it takes a third of a second."""
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(std="c++17", arch=f"sm_{arch}", fma=False)
    return Program(source(), "c++", options).compile("cubin")


def _compile(device: Device) -> ObjectCode:
    try:
        return _compiled(device.arch)
    except Exception as error:  # cuda-core raises exceptions of several packages
        reason = cause_of(error)
        if "nvrtc" in type(error).__name__.lower() and "compil" in reason.lower():
            raise RunError(f"the resize kernels do not compile: {reason}") from error
        raise MissingPackageError(
            f"CUDA's run-time compiler can't be loaded: {reason}",
            hint="pip install 'caft-zoo[gpu-decode]'",
        ) from error
