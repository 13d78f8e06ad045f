"""A GPU of numpy, with streams, events and a TensorRT on it, for sessions on machines without one.

What is put on a stream runs as late as it may, or as early: work that does not wait for what it
has to wait for shows in one of the two.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from support.caft import record
from zoo.runtime import cuda
from zoo.runtime.tensorrt import engine as loaded
from zoo.runtime.tensorrt.session import TensorRTSession
from zoo.schema.manifest import BatchRange
from zoo.util.errors import RunError

Work = Callable[[], None]
PROFILES = (BatchRange(opt=1, max=4), BatchRange(min=5, opt=8, max=8))
WIDTH = 6


class Event:
    """Has come when the work before it has run."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.come = False

    def happen(self) -> None:
        """Runs what it takes for this to come."""
        with self.stream.lock:
            while not self.come:
                self.stream.step()

    sync = happen


class Stream:
    """Work in its order."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self.lock = gpu.lock
        self._work: deque[Work | Event] = deque()
        self.handle = len(gpu.streams) + 1
        gpu.streams[self.handle] = self

    def put(self, work: Work) -> None:
        with self.lock:
            self._work.append(work)
            self._gpu.advance()

    def record(self, options: Any = None) -> Event:
        event = Event(self)

        def come() -> None:
            event.come = True

        self.put(come)
        return event

    def wait(self, event: Event) -> None:
        with self.lock:
            self._work.append(event)
            self._gpu.advance()

    def step(self) -> None:
        first = self._work.popleft()
        if isinstance(first, Event):
            first.happen()
        else:
            first()

    def run_ready(self) -> bool:
        """Runs what waits for no other stream; says whether that was anything."""
        ran = False
        while self._work and not (isinstance(self._work[0], Event) and not self._work[0].come):
            self.step()
            ran = True
        return ran

    def sync(self) -> None:
        with self.lock:
            while self._work:
                self.step()

    def close(self) -> None:
        self.sync()


@dataclass
class Buffer:
    """Memory of the GPU."""

    handle: int
    data: npt.NDArray[np.uint8]
    freed: bool = False

    def close(self, stream: Any = None) -> None:
        if stream is None:
            self.freed = True
        else:
            stream.put(self.close)

    def fill(self, value: int, *, stream: Stream) -> None:
        stream.put(lambda: self.data.fill(value))


@dataclass
class FakeGpu:
    """The device, and what it holds.

    Attributes:
        early: Streams, by the order in which they are made, whose work runs as early as it may;
            that of others runs when it is waited for. A session's own stream is the first.
        free: Bytes of memory that it says are free.
        lockable: Whether the host's memory can be page-locked.
    """

    early: tuple[int, ...] = ()
    free: int = 1 << 30
    lockable: bool = True
    device_id: int = 0
    compute_capability: Any = (8, 6)
    streams: dict[int, Stream] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    locked: list[HostMemory] = field(default_factory=list)
    ran: int = 0
    lock: Any = field(default_factory=threading.RLock)

    def set_current(self) -> None:
        pass

    def create_stream(self) -> Stream:
        return Stream(self)

    def allocate(self, size: int, stream: Any = None) -> Buffer:
        with self.lock:
            buffer = Buffer(1 << 20 | len(self.buffers) << 32, np.full(size, 0xFF, np.uint8))
            self.buffers.append(buffer)
        return buffer

    def at(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        """Returns the bytes at an address, which must lie in one buffer that is not freed."""
        buffer = next(b for b in self.buffers if 0 <= address - b.handle < len(b.data))
        start = address - buffer.handle
        assert not buffer.freed
        assert start + size <= len(buffer.data)
        return buffer.data[start : start + size]

    def advance(self) -> None:
        early = [stream for handle, stream in self.streams.items() if handle in self.early]
        while any(stream.run_ready() for stream in early):
            pass

    def held(self) -> int:
        """Buffers that are not freed."""
        return sum(not buffer.freed for buffer in self.buffers)


class HostMemory:
    """Page-locked memory, in a fake's way: what it held is gone once it is freed."""

    def __init__(self, gpu: FakeGpu, shape: tuple[int, ...]) -> None:
        if not gpu.lockable:
            raise RunError("CUDA: CUDA_ERROR_OUT_OF_MEMORY")
        self.array = np.zeros(shape, np.float32)
        gpu.locked.append(self)

    def close(self) -> None:
        self.array[:] = np.nan


def expected(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What the engine makes of images."""
    weights = np.random.default_rng(0).standard_normal((3 * 32 * 32, WIDTH), np.float32)
    return images.reshape(len(images), -1) @ weights


class _Context:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> None:
        pass

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        shape, addresses = self._shape, dict(self._addresses)

        def run() -> None:
            data = self._gpu.at(addresses["images"], 4 * int(np.prod(shape)))
            found = expected(data.view(np.float32).reshape(shape))
            self._gpu.at(addresses["features"], found.nbytes)[:] = found.reshape(-1).view(np.uint8)
            self._gpu.ran += 1

        self._gpu.streams[stream].put(run)
        return True


class FakeEngine:
    num_io_tensors = 2
    num_optimization_profiles = len(PROFILES)
    device_memory_size_v2 = 1000

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def get_tensor_name(self, index: int) -> str:
        return ("images", "features")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "images" else "out"

    def get_tensor_dtype(self, name: str) -> str:
        return "float32"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3, 32, 32) if name == "images" else (-1, WIDTH)

    def get_tensor_profile_shape(self, name: str, index: int) -> tuple[tuple[int, ...], ...]:
        one = PROFILES[index]
        return (one.min, 3, 32, 32), (one.opt, 3, 32, 32), (one.max, 3, 32, 32)

    def create_execution_context(self) -> _Context:
        return _Context(self._gpu)


class _Log:
    INTERNAL_ERROR, ERROR = "internal", "error"

    def __init__(self) -> None:
        pass


def open_fake(gpu: FakeGpu, path: Path, patch: pytest.MonkeyPatch) -> TensorRTSession:
    """Opens a real session on a fake GPU."""

    def copy_in(target: int, source: Any, stream: Stream) -> None:
        source = source.reshape(-1).view(np.uint8)  # read when the copy runs, no sooner

        def copy() -> None:
            gpu.at(target, source.nbytes)[:] = source

        stream.put(copy)

    def copy_out(target: Any, source: int, stream: Stream) -> None:
        def copy() -> None:
            target.reshape(-1).view(np.uint8)[:] = gpu.at(source, target.nbytes)

        stream.put(copy)

    def copy_over(target: int, source: int, size: int, stream: Stream) -> None:
        def copy() -> None:
            gpu.at(target, size)[:] = gpu.at(source, size)

        stream.put(copy)

    patch.setattr(cuda, "copy_in", copy_in)
    patch.setattr(cuda, "copy_out", copy_out)
    patch.setattr(cuda, "copy_over", copy_over)
    patch.setattr(cuda, "record", lambda stream: stream.record())
    patch.setattr(cuda, "free_memory", lambda: gpu.free)
    patch.setattr(cuda, "open_device", lambda: gpu)
    patch.setattr(cuda, "HostMemory", lambda shape: HostMemory(gpu, shape))
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: FakeEngine(gpu))
    trt = SimpleNamespace(
        ILogger=_Log,
        Runtime=lambda log: runtime,
        TensorIOMode=SimpleNamespace(INPUT="in"),
        float32="float32",
        float16="float16",
    )
    patch.setattr(loaded, "check_engine", lambda *arguments: None)
    patch.setattr(loaded, "check_arch", lambda *arguments: None)
    patch.setattr(loaded, "import_runtime", lambda inputs: trt)
    engine = path / "engine"
    engine.write_bytes(b"an engine")
    return TensorRTSession(engine, record().inputs)
