"""Sessions of TensorRT and TensorRT-RTX, whose APIs are alike.

A session may be used from several threads: each call borrows a lane (a stream, and a context and
buffers per optimisation profile), and lanes are made as they are needed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.runtime import cuda
from zoo.runtime.base import check_images
from zoo.runtime.header import check_arch, check_engine, describe, read_file_header
from zoo.runtime.tensorrt.lane import FLOAT_BYTES, Bound, Lane
from zoo.runtime.tensorrt.pipeline import LanePipeline
from zoo.schema.closed import Unknown
from zoo.schema.keys import BuildInputs
from zoo.schema.manifest import BatchRange
from zoo.schema.runtimes import RUNTIME_FACTS, title_of
from zoo.schema.targets import RuntimeLine
from zoo.util.causes import plain
from zoo.util.errors import MissingPackageError, RunError

if TYPE_CHECKING:
    from cuda.core import Stream

_MOST_ERRORS = 8  # a session that goes on may log many


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
        check_engine(engine, inputs, size)
        self.device = cuda.open_device()
        check_arch(inputs, self.device.compute_capability)
        self._trt = import_runtime(inputs)
        self.cuda_graphs = cuda_graphs
        self._log = _make_log(self._trt)
        self._runtime = self._trt.Runtime(self._log)
        if inputs.options.get("version_compatible"):
            self._runtime.engine_host_code_allowed = True  # its lean runtime; digest was checked
        self._engine = self._runtime.deserialize_cuda_engine(engine.read_bytes())
        if self._engine is None:
            raise RunError(
                f"{engine.name} can't be loaded: {self._log.told or 'TensorRT gives no reason'}",
                hint=f"it is a {describe(read_file_header(engine))}; installed here is "
                f"{title_of(inputs.toolchain.kind)} {self._trt.__version__}",
            )
        self.input, self.output = self._names()
        count = self._engine.num_optimization_profiles
        self._profiles = tuple(self._profile(index) for index in range(count))
        _, channels, height, width = self._dimensions(self.input, "(N, 3, H, W)", 4)
        self._shape = (channels, height, width)
        _, self._width = self._dimensions(self.output, "(N, features)", 2)
        self._lock = threading.Lock()
        self._idle: list[Lane] = []
        self.host = cuda.HostPool()
        self._closed = False

    def _dimensions(self, name: str, needed: str, rank: int) -> tuple[int, ...]:
        shape = tuple(map(int, self._engine.get_tensor_shape(name)))
        if len(shape) != rank:
            raise RunError(f"the engine's '{name}' has shape {shape}, expected {needed}")
        return shape

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self._shape

    @property
    def profiles(self) -> tuple[BatchRange, ...]:
        """Batch ranges of the optimisation profiles."""
        return self._profiles

    @property
    def width(self) -> int:
        """Number of features per image."""
        return self._width

    @property
    def last_error(self) -> str:
        """The last error that TensorRT logged, which is the only place where it gives reasons."""
        return str(self._log.last)

    @property
    def profile_memory(self) -> tuple[int, ...]:
        """Device memory in bytes of a context for each profile, including buffers.

        TensorRT allocates the scratch memory of the largest profile for every context.
        """
        image = self.image_bytes + FLOAT_BYTES * self._width
        scratch = max(_context_memory(self._engine, n) for n in range(len(self.profiles)))
        return tuple(scratch + image * profile.max for profile in self.profiles)

    def inspect(self) -> str:
        """Returns the output of TensorRT's engine inspector for the layers as JSON."""
        inspector = self._engine.create_engine_inspector()
        text: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return text

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
            check_images(images, self._shape)
            with self._lane() as lane:
                return lane.run_host(np.ascontiguousarray(images, self.image_type))
        with self._lane() as lane:
            return lane.run_device(images)

    @contextmanager
    def pipeline(self) -> Iterator[LanePipeline]:
        """Opens a pipeline, which uploads a batch while the previous one runs.

        After it is closed, its host memory must not be used, and features that were not fetched
        are lost.
        """
        with self._lane() as lane, closing(LanePipeline(lane)) as pipeline:
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
        self.host.close()
        self._engine = self._runtime = None

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
            lane = Lane(self)
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

    def _names(self) -> tuple[str, str]:
        engine, trt = self._engine, self._trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if n not in inputs]
        if len(inputs) != 1 or len(outputs) != 1:
            raise RunError(f"the engine has inputs {inputs} and outputs {outputs}, one of each is "
                           "needed")  # fmt: skip
        for name, taken in ((inputs[0], (trt.float32, trt.float16)), (outputs[0], (trt.float32,))):
            if engine.get_tensor_dtype(name) not in taken:
                raise RunError(f"the engine's '{name}' is {engine.get_tensor_dtype(name)}, "
                               f"{' or '.join(map(str, taken))} is needed")  # fmt: skip
        return inputs[0], outputs[0]

    @property
    def image_type(self) -> np.dtype[Any]:
        """Type of the engine's input, to which float32 numpy images are converted."""
        half = self._engine.get_tensor_dtype(self.input) == self._trt.float16
        return np.dtype(np.float16 if half else np.float32)

    @property
    def image_bytes(self) -> int:
        """Size in bytes of an image in the engine's input type."""
        return self.image_type.itemsize * int(np.prod(self._shape))

    def _profile(self, index: int) -> BatchRange:
        least, best, most = self._engine.get_tensor_profile_shape(self.input, index)
        return BatchRange(min=least[0], opt=best[0], max=most[0])

    def new_context(self, profile: int, stream: Stream) -> Bound:
        """Creates a context on a profile if the GPU has enough free memory."""
        need, free = self.profile_memory[profile], cuda.free_memory()
        if need > free:
            range_ = self.profiles[profile]
            raise RunError(
                f"batches of {range_.min} to {range_.max} need {need >> 20:,} MiB of GPU memory, "
                f"but only {free >> 20:,} MiB is free",
                hint="free some memory (nvidia-smi shows its users), or use smaller batches: "
                + ", ".join(
                    f"up to {one.max} needs {memory >> 20:,} MiB"
                    for one, memory in zip(self.profiles, self.profile_memory, strict=True)
                ),
            )
        context = self._engine.create_execution_context()
        if context is None:
            raise RunError(f"TensorRT can't create a context: {self._log.last}")
        context.set_optimization_profile_async(profile, int(stream.handle))
        most = self.profiles[profile].max
        images = self.device.allocate(most * self.image_bytes, stream=stream)
        features = self.device.allocate(FLOAT_BYTES * most * self._width, stream=stream)
        return Bound(context=context, images=images, features=features)


def open_session(
    engine: Path, inputs: BuildInputs, size: int | None = None, **options: Any
) -> TensorRTSession:
    """Loads an engine on the first GPU."""
    return TensorRTSession(engine, inputs, size, **options)


def import_runtime(inputs: BuildInputs) -> Any:
    """Imports the runtime of an engine.

    Raises:
        MissingPackageError: It is not installed, or its libraries are not found.
        RunError: Another version is installed.
    """
    kind, wanted = inputs.toolchain.kind, inputs.toolchain.version
    name = title_of(kind)
    if isinstance(kind, Unknown):
        raise RunError(f"the engine requires {name} {wanted}, which this version does not support")
    try:
        trt = import_module(RUNTIME_FACTS[kind].module)
    except (ImportError, OSError) as error:
        raise MissingPackageError(
            f"the engine requires {name} {wanted}, which can't be imported: {error}",
            hint=RUNTIME_FACTS[kind].install,
        ) from error
    have = str(trt.__version__).split(".")
    common = min(len(have), wanted.count(".") + 1)
    exact = have[:common] == wanted.split(".")[:common]
    if not exact and not inputs.options.get("version_compatible"):
        raise RunError(
            f"the engine requires {name} {wanted}, but {trt.__version__} is installed",
            hint=f"zoo show {inputs.model} lists engines of other versions; to build one: "
            f"make zoo MODELS={inputs.model} TRT={RuntimeLine(kind, '.'.join(have[:2])).asked}",
        )
    return trt


def _make_log(trt: Any) -> Any:
    """Returns a logger that keeps errors, the only place where TensorRT gives reasons.

    Its ``last`` is the last error and ``told`` all of them, each once, as plain text.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""
            self._errors: dict[str, None] = {}

        @property
        def told(self) -> str:
            return plain("; ".join(self._errors))

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.last = plain(message)
                if len(self._errors) < _MOST_ERRORS:
                    self._errors[self.last] = None

    return Log()


def _context_memory(engine: Any, profile: int) -> int:
    """Returns the device memory of a context, whose attribute differs between versions."""
    for name in ("get_device_memory_size_for_profile_v2", "get_device_memory_size_for_profile"):
        if hasattr(engine, name):
            return int(getattr(engine, name)(profile))
    for name in ("device_memory_size_v2", "device_memory_size"):
        if hasattr(engine, name):
            return int(getattr(engine, name))
    return 0
