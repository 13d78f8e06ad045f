"""CUDA for sessions, through cuda-core: the device, copies, and arrays that stay on the GPU."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt

from zoo.util.causes import cause_of
from zoo.util.errors import MissingPackageError, RunError

if TYPE_CHECKING:
    from cuda.core import Buffer, Device, Event, Stream

ALIGNMENT = 256
"""Alignment in bytes that TensorRT requires of input and output addresses."""


_DLPACK_CPU = 1
"""``__dlpack_device__`` type of host memory."""

_NO_VIEW = (BufferError, AttributeError, TypeError, ValueError, RuntimeError, AssertionError)
"""Errors that libraries raise for arrays that they can't export."""


def open_device(index: int = 0) -> Device:
    """Returns a GPU, made current for this thread.

    Raises:
        MissingPackageError: cuda-core is not installed.
        RunError: There is no GPU, or no driver for it.
    """
    try:
        from cuda.core import Device
    except ImportError as error:
        raise MissingPackageError(
            f"cuda-core can't be imported: {error}", hint="pip install 'caft-zoo[tensorrt]'"
        ) from error
    try:
        device = Device(index)
        device.set_current()
    except Exception as error:  # cuda-core raises classes of several packages
        raise RunError(
            f"no usable NVIDIA GPU: {cause_of(error)}",
            hint="nvidia-smi must list the GPU; `zoo show MODEL` also lists engines for the CPU",
        ) from error
    return device


def free_memory() -> int:
    """Returns how many bytes of the current GPU's memory are free."""
    from cuda.bindings import driver

    _, free, _ = check(driver.cuMemGetInfo())
    return int(free)


def copy_in(destination: int, source: npt.NDArray[Any], stream: Stream) -> None:
    """Copies a contiguous array of the host to the GPU."""
    from cuda.bindings import driver

    check(
        driver.cuMemcpyHtoDAsync(destination, source.ctypes.data, source.nbytes, int(stream.handle))
    )


def copy_out(destination: npt.NDArray[Any], source: int, stream: Stream) -> None:
    """Copies from the GPU into a contiguous array of the host."""
    from cuda.bindings import driver

    address, size = destination.ctypes.data, destination.nbytes
    check(driver.cuMemcpyDtoHAsync(address, source, size, int(stream.handle)))


def copy_over(destination: int, source: int, size: int, stream: Stream) -> None:
    """Copies bytes within the GPU."""
    from cuda.bindings import driver

    check(driver.cuMemcpyDtoDAsync(destination, source, size, int(stream.handle)))


def record(stream: Stream) -> Event:
    """Records an event. To wait for it leaves the core to others.

    What cuda-core's streams record by default, and ``Stream.sync``, keep a core busy until it has
    come, which is faster by some microseconds.
    """
    from cuda.core import EventOptions

    return stream.record(options=EventOptions(blocking_sync=True))


def check(result: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns what a call of the CUDA driver gave.

    Raises:
        RunError: The call failed.
    """
    from cuda.bindings import driver

    if result[0] != driver.CUresult.CUDA_SUCCESS:
        raise RunError(f"CUDA: {result[0].name}", hint="nvidia-smi shows the state of the GPU")
    return result


class HostMemory:
    """Page-locked memory of the host, which the GPU reads by itself, at the full rate of the bus.

    Args:
        shape: Of its array.

    Raises:
        RunError: The system does not lock that much.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        from cuda.bindings import driver

        size = int(np.prod(shape)) * np.dtype(np.float32).itemsize
        _, self._address = check(driver.cuMemHostAlloc(size, 0))
        memory = (ctypes.c_ubyte * size).from_address(int(self._address))
        self.array: npt.NDArray[np.float32] = np.frombuffer(memoryview(memory), np.float32).reshape(
            shape
        )

    def close(self) -> None:
        """Frees the memory; the array and its views must not be used afterwards."""
        from cuda.bindings import driver

        check(driver.cuMemFreeHost(self._address))


class HostPool:
    """Reuses page-locked memory, because locking pages takes longer than running a batch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[HostMemory] = []
        self._closed = False

    def take(self, shape: tuple[int, ...]) -> HostMemory:
        """Returns memory of a shape.

        Raises:
            RunError: The system does not lock that much.
        """
        with self._lock:
            for memory in self._kept:
                if memory.array.shape == shape:
                    self._kept.remove(memory)
                    return memory
        return HostMemory(shape)

    def give_back(self, lent: list[HostMemory]) -> None:
        """Keeps memory for reuse; the caller must not use it afterwards."""
        with self._lock:
            self._kept += lent
            if self._closed:
                self._free()

    def close(self) -> None:
        """Frees the unused memory, and memory in use when it is returned."""
        with self._lock:
            self._closed = True
            self._free()

    def _free(self) -> None:
        for memory in self._kept:
            memory.close()
        self._kept.clear()


@dataclass(kw_only=True)
class DeviceBatch:
    """A batch in the GPU's memory, in the engine's input type, whose memory is used again.

    Attributes:
        buffer: Its memory.
        rows: Number of images.
        ready: When the images are there.
        read: When the engine has read them; the pipeline records it.
    """

    buffer: Buffer
    rows: int
    ready: Event
    read: Event

    @property
    def address(self) -> int:
        """Address of the first image."""
        return int(self.buffer.handle)


class CudaArrayInterface(TypedDict):
    """Version 3 of Numba's CUDA array interface.

    Attributes:
        shape: Rows and columns.
        typestr: NumPy's name of the type, ``<f4``.
        data: Address, and whether the memory is read-only.
        strides: None: rows are contiguous.
        stream: None: the array is complete.
        version: 3.
    """

    shape: tuple[int, int]
    typestr: str
    data: tuple[int, bool]
    strides: None
    stream: None
    version: int


class DeviceArray:
    """A float32 matrix in GPU memory that supports DLPack and the CUDA array interface.

    ``torch.from_dlpack(array)``, ``torch.as_tensor(array, device="cuda")`` and
    ``cupy.asarray(array)`` take it without a copy. It is complete when it is handed out.

    Args:
        buffer: The memory; freed when neither this nor a view of it is used any more.
        shape: Rows and columns.
    """

    def __init__(self, buffer: Buffer, shape: tuple[int, int]) -> None:
        from cuda.core.utils import StridedMemoryView

        self.shape = shape
        self.dtype = np.dtype(np.float32)
        self._buffer = buffer
        self._view = StridedMemoryView.from_buffer(buffer, shape, dtype=self.dtype)

    @property
    def __cuda_array_interface__(self) -> CudaArrayInterface:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (int(self._buffer.handle), False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def __dlpack__(self, **arguments: Any) -> Any:
        return self._view.__dlpack__(**arguments)

    def __dlpack_device__(self) -> Any:
        return self._view.__dlpack_device__()

    def numpy(self) -> npt.NDArray[np.float32]:
        """Returns a copy in host memory."""
        from cuda.bindings import driver

        copy = np.empty(self.shape, self.dtype)
        check(driver.cuMemcpyDtoH(copy.ctypes.data, int(self._buffer.handle), copy.nbytes))
        return copy


def device_view(images: Any, stream: Stream) -> Any:
    """Returns a view of an array in GPU memory, synchronised with the stream that wrote it.

    Raises:
        RunError: The object supports no array interface, or is in host memory.
    """
    from cuda.core.utils import StridedMemoryView

    try:
        if hasattr(images, "__dlpack_device__") and images.__dlpack_device__()[0] == _DLPACK_CPU:
            raise RunError(
                "images are in host memory, but the engine runs on a GPU",
                hint="pass a numpy array (tensors have .numpy()), or move the images to the GPU",
            )
        return StridedMemoryView.from_any_interface(images, int(stream.handle))
    except _NO_VIEW as error:
        raise RunError(
            f"images are a {type(images).__name__}, which is neither a numpy array nor a GPU array "
            f"with DLPack or __cuda_array_interface__: {error}",
            hint="pass a numpy array, or a contiguous CUDA tensor (detached, float32)",
        ) from error


def check_device_images(
    view: Any, shape: tuple[int, int, int], kind: np.dtype[Any], device: int
) -> None:
    """Checks type, shape, location and layout of images in GPU memory.

    Args:
        view: View from :func:`device_view`.
        shape: Channels, height and width of the engine's input.
        kind: Type of the engine's input.
        device: Index of the session's GPU.

    Raises:
        RunError: Type, shape or GPU is wrong, or the images are not contiguous.
    """
    if not view.is_device_accessible or view.device_id != device:
        place = (
            "host memory" if not view.is_device_accessible else f"memory of GPU {view.device_id}"
        )
        raise RunError(
            f"images are in {place}, but the engine runs on GPU {device}",
            hint="pass a numpy array, or move the images to that GPU",
        )
    try:
        dtype, reason = view.dtype, ""
    except (NotImplementedError, TypeError) as error:  # bfloat16, float8
        dtype, reason = "of another type", f" ({error})"
    if reason or dtype != kind:
        convert = "images.half()" if kind == np.float16 else "images.float()"
        raise RunError(f"images are {dtype}, but the engine needs {kind}{reason}",
                       hint=f"convert them on the GPU: {convert}")  # fmt: skip
    rows, *image = view.shape if len(view.shape) == 4 else (0,)
    if tuple(image) != shape or rows < 1:
        wanted = ", ".join(map(str, shape))
        raise RunError(
            f"images have shape {tuple(view.shape)}, but the engine needs (N, {wanted}) with N >= 1"
        )
    channels, height, width = shape
    contiguous = (channels * height * width, height * width, width, 1)
    first = 0 if rows > 1 else 1  # the batch stride of a single image does not matter
    if view.strides is not None and tuple(view.strides)[first:] != contiguous[first:]:
        raise RunError(
            "images are not contiguous in (N, C, H, W) order",
            hint="call images.contiguous(); channels_last is not supported",
        )
