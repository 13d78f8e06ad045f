"""Sessions of TensorRT and TensorRT-RTX, whose APIs are alike.

A session may be used from several threads: each call borrows a lane (a stream, and a context and
buffers per optimisation profile), and lanes are made as they are needed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.runtime.base import check_images
from zoo.runtime.tensorrt.engine import LoadedEngine
from zoo.runtime.tensorrt.lane import Lane
from zoo.runtime.tensorrt.pipeline import LanePipeline
from zoo.schema.keys import BuildInputs
from zoo.schema.manifest import BatchRange
from zoo.util.errors import RunError

if TYPE_CHECKING:
    from cuda.core import Device


class TensorRTSession:
    """A :class:`~zoo.runtime.base.Session` on an NVIDIA GPU.

    Args:
        engine: Path of the engine. Check its digest first: engines contain native code.
        inputs: The build inputs in the engine's record.
        size: Expected size in bytes, if known.
        cuda_graphs: Replay a captured CUDA graph per batch size, which reduces the CPU time of
            each call; this matters for small batches.

    Raises:
        RunError: The engine is for another GPU or TensorRT, is damaged, or can't be loaded.
        MissingPackageError: A package is not installed.
    """

    def __init__(
        self,
        engine: Path,
        inputs: BuildInputs,
        size: int | None = None,
        *,
        cuda_graphs: bool = False,
    ) -> None:
        self._engine = LoadedEngine(engine, inputs, size, cuda_graphs=cuda_graphs)
        self._lock = threading.Lock()
        self._idle: list[Lane] = []
        self._closed = False

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self._engine.input_shape

    @property
    def profiles(self) -> tuple[BatchRange, ...]:
        """Batch ranges of the optimisation profiles."""
        return self._engine.profiles

    @property
    def width(self) -> int:
        """Number of features per image."""
        return self._engine.width

    @property
    def image_type(self) -> np.dtype[Any]:
        """Type of the engine's input, to which float32 numpy images are converted."""
        return self._engine.image_type

    @property
    def device(self) -> Device:
        """The GPU."""
        return self._engine.device

    @property
    def profile_memory(self) -> tuple[int, ...]:
        """Device memory in bytes of a context for each profile, including buffers."""
        return self._engine.profile_memory

    def inspect(self) -> str:
        """Returns the output of TensorRT's engine inspector for the layers as JSON."""
        return self._engine.inspect()

    def features(self, images: Any) -> Any:
        """Computes features.

        Args:
            images: Preprocessed images, ``(N, 3, H, W)`` with N >= 1: a float32 numpy array, or a
                contiguous array on this GPU with DLPack or ``__cuda_array_interface__`` (torch or
                CuPy), which is read without a copy. Its type must be :attr:`image_type`, float16
                for engines with fp16 input.

        Returns:
            ``(N, feature_dim)`` float32: a numpy array for numpy input, else a
            :class:`~zoo.runtime.cuda.DeviceArray`.

        Raises:
            RunError: The images have the wrong shape, type or location, or memory does not suffice.
        """
        if isinstance(images, np.ndarray):
            check_images(images, self.input_shape)
            with self._lane() as lane:
                return lane.run_host(np.ascontiguousarray(images, self.image_type))
        with self._lane() as lane:
            return lane.run_device(images)

    @contextmanager
    def pipeline(self, *, patient: bool = False) -> Iterator[LanePipeline]:
        """Opens a pipeline, which uploads a batch while the previous one runs.

        After it is closed, its host memory must not be used, and features that were not fetched
        are lost.

        Args:
            patient: Whether a wait leaves the core to others; it then takes a little longer.
        """
        with self._lane() as lane, closing(LanePipeline(lane, patient=patient)) as pipeline:
            yield pipeline

    def time_on_device(
        self, batch: int, profile: int, runs: int, *, cuda_graph: bool = True
    ) -> list[float]:
        """Times runs with CUDA events, with data already on the GPU.

        Args:
            batch: Batch size; the profile must support it.
            profile: Index of the profile.
            runs: Number of runs to time after a warm-up.
            cuda_graph: Replay a captured graph instead of enqueueing every run.

        Returns:
            Milliseconds of each run.
        """
        with self._lane() as lane:
            return lane.time(batch, profile, runs, cuda_graph=cuda_graph)

    def close(self) -> None:
        """Releases contexts, streams and memory; the session can't be used afterwards."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for lane in idle:
            lane.close()
        self._engine.close()

    def __enter__(self) -> TensorRTSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        """Lends a lane to the calling thread."""
        self.device.set_current()
        with self._lock:
            if self._closed:
                raise RunError("the session is closed")
            lane = self._idle.pop() if self._idle else None
        if lane is None:
            lane = Lane(self._engine)
        try:
            yield lane
        except BaseException:
            lane.close()  # what it was doing is unknown
            raise
        with self._lock:
            if not self._closed:
                self._idle.append(lane)
                return
        lane.close()


def open_session(
    engine: Path, inputs: BuildInputs, size: int | None = None, **options: Any
) -> TensorRTSession:
    """Loads an engine on the first GPU."""
    return TensorRTSession(engine, inputs, size, **options)
