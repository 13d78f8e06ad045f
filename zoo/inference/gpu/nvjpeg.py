"""nvJPEG's batched decoder, through ctypes: one call per batch.

Source: ``nvjpeg.h`` of the PyPI package nvidia-nvjpeg 13.2. A Python call per photo would have to
wait for the GIL each time, while other threads prepare photos.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.inference.gpu import turns
from zoo.util.errors import MissingPackageError, RunError

if TYPE_CHECKING:
    from cuda.core import Stream

IMAGE = np.dtype([("channel", np.uint64, 4), ("pitch", np.uint64, 4)])
"""Layout of ``nvjpegImage_t``."""

_HARDWARE = 3  # nvjpegBackend_t
_INTERPOLATED = 1 << 5  # upsamples chroma as libjpeg does; without it, values differ by up to 63
_RGB = 5  # nvjpegOutputFormat_t: 8 bits a channel, interleaved
_ERRORS = {
    1: "it is not initialised",
    2: "a parameter is invalid",
    3: "a file is damaged",
    4: "a file is not supported",
    5: "memory does not suffice",
    6: "its execution failed",
    7: "the GPU has no such hardware",
    8: "an internal error",
    9: "it is not implemented",
    10: "a file is incomplete",
}
"""Values of ``nvjpegStatus_t``."""

_POINTER = ctypes.c_void_p
_NUMBER = ctypes.c_int
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "nvjpegCreateEx": (_NUMBER, _POINTER, _POINTER, ctypes.c_uint, _POINTER),
    "nvjpegDestroy": (_POINTER,),
    "nvjpegJpegStateCreate": (_POINTER, _POINTER),
    "nvjpegJpegStateDestroy": (_POINTER,),
    "nvjpegDecodeBatchedInitialize": (_POINTER, _POINTER, _NUMBER, _NUMBER, _NUMBER),
    "nvjpegDecodeBatched": (_POINTER,) * 6,
    "nvjpegGetProperty": (_NUMBER, _POINTER),
    "nvjpegGetImageInfo": (_POINTER, _POINTER, ctypes.c_size_t, *(_POINTER,) * 4),
}
_KEEP_GIL = frozenset({"nvjpegGetImageInfo"})
"""Functions that take microseconds: giving up the GIL would take longer."""
_COMPONENTS = 4  # NVJPEG_MAX_COMPONENT


class NvJpegError(RunError):
    """A call of nvJPEG failed."""


class NvJpeg:
    """The hardware decoder of the current GPU; used by one thread at a time.

    Args:
        states: Number of batches whose decoding may overlap.

    Raises:
        MissingPackageError: nvJPEG is not installed or can't be loaded.
        NvJpegError: The GPU has no such decoder.
    """

    def __init__(self, states: int) -> None:
        self._functions = _load()
        self._widths, self._heights = ((_NUMBER * _COMPONENTS)() for _ in range(2))
        self._states: list[ctypes.c_void_p] = []
        self._handle = ctypes.c_void_p()
        self._call(
            "nvjpegCreateEx", _HARDWARE, None, None, _INTERPOLATED, ctypes.byref(self._handle)
        )
        try:
            for _ in range(states):
                state = ctypes.c_void_p()
                self._call("nvjpegJpegStateCreate", self._handle, ctypes.byref(state))
                self._states.append(state)
        except NvJpegError:
            self.close()
            raise

    @property
    def version(self) -> str:
        """Version of the library."""
        parts = []
        for part in range(3):
            value = ctypes.c_int()
            self._call("nvjpegGetProperty", part, ctypes.byref(value))
            parts.append(str(value.value))
        return ".".join(parts)

    def size_of(self, file: int, size: int) -> tuple[int, int] | None:
        """Returns width and height of the image in a file, None if it can't be told.

        Args:
            file: Address of the file, in the host's memory.
            size: Its size in bytes.
        """
        other = ctypes.byref(_NUMBER())
        status = self._functions["nvjpegGetImageInfo"](
            self._handle, file, size, other, other, self._widths, self._heights
        )
        return None if status else (self._widths[0], self._heights[0])

    def decode(
        self,
        state: int,
        files: npt.NDArray[np.uint64],
        sizes: npt.NDArray[np.uint64],
        images: npt.NDArray[np.void],
        stream: Stream,
    ) -> None:
        """Decodes files to interleaved RGB, in the order of a stream.

        Args:
            state: Number of the state, whose last decoding has finished.
            files: Addresses of the files, in the host's memory.
            sizes: Their sizes in bytes.
            images: Where the photos go, of type :data:`IMAGE`.
            stream: The stream.

        Raises:
            NvJpegError: The batch was not decoded. Of a file with damage, more may not be noticed.
        """
        self._call(
            "nvjpegDecodeBatchedInitialize", self._handle, self._states[state], len(files), 1, _RGB
        )
        arguments = files.ctypes.data, sizes.ctypes.data, images.ctypes.data, int(stream.handle)
        with turns.mine():
            self._call("nvjpegDecodeBatched", self._handle, self._states[state], *arguments)

    def close(self) -> None:
        """Frees its memory, once all decoding has finished."""
        while self._states:
            self._functions["nvjpegJpegStateDestroy"](self._states.pop())
        if self._handle:
            self._functions["nvjpegDestroy"](self._handle)
            self._handle = ctypes.c_void_p()

    def _call(self, name: str, *arguments: Any) -> None:
        status = self._functions[name](*arguments)
        if status:
            raise NvJpegError(f"nvJPEG: {_ERRORS.get(status, f'status {status}')} ({name})")


def installed() -> bool:
    """Returns whether nvJPEG is installed, without loading it."""
    return next(_files(), None) is not None


@cache
def _load() -> dict[str, Callable[..., int]]:
    """Returns the functions of nvJPEG, which is loaded from where its package puts it.

    Raises:
        MissingPackageError: It is not installed, or can't be loaded.
    """
    hint = "pip install 'caft-zoo[gpu-decode]'"
    found = next(_files(), None)
    if found is None:
        raise MissingPackageError("nvJPEG is not installed", hint=hint)
    try:
        libraries = {True: ctypes.PyDLL(str(found)), False: ctypes.CDLL(str(found))}
        functions = {name: getattr(libraries[name in _KEEP_GIL], name) for name in _ARGUMENTS}
    except (OSError, AttributeError) as error:
        raise MissingPackageError(f"nvJPEG can't be loaded: {error}", hint=hint) from error
    for name, function in functions.items():
        function.argtypes = _ARGUMENTS[name]
    return dict(functions)


def _files() -> Iterator[Path]:
    """Yields nvJPEG's library files."""
    if util.find_spec("nvidia") is None:
        return
    for folder in map(Path, import_module("nvidia").__path__):
        yield from sorted(folder.glob("cu*/lib/libnvjpeg.so.*"))
        yield from sorted(folder.glob("nvjpeg/lib/libnvjpeg.so.*"))
