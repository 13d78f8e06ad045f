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
from zoo.util.errors import MissingPackageError, RunError

if TYPE_CHECKING:
    from cuda.core import Stream


class TensorRTSession:
    """A :class:`~zoo.runtime.base.Session` on an NVIDIA GPU.

    Args:
        engine: The engine; checked against its digest, for it is native code.
        inputs: What it was made from, as its record says.
        size: Bytes that it should have, when that is known.
        cuda_graphs: Whether to replay a captured CUDA graph per batch size: less work for the CPU
            at each call, which shows at small batches.

    Raises:
        RunError: The engine is not for this GPU or this TensorRT, is damaged, or does not load.
        MissingPackageError: A package is missing.
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
                f"{engine.name} does not load: {self._log.last or 'TensorRT does not say why'}",
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
            raise RunError(f"the engine's '{name}' has shape {shape}, {needed} is needed")
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
        """Features of an image."""
        return self._width

    @property
    def last_error(self) -> str:
        """The last error that TensorRT logged: it gives reasons nowhere else."""
        return str(self._log.last)

    @property
    def profile_memory(self) -> tuple[int, ...]:
        """Bytes of device memory that a context takes for each profile, buffers included.

        TensorRT gives every context what the largest profile needs.
        """
        image = self.image_bytes + FLOAT_BYTES * self._width
        scratch = max(_context_memory(self._engine, n) for n in range(len(self.profiles)))
        return tuple(scratch + image * profile.max for profile in self.profiles)

    def inspect(self) -> str:
        """Returns what TensorRT's engine inspector says of the layers, JSON."""
        inspector = self._engine.create_engine_inspector()
        text: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return text

    def features(self, images: Any) -> Any:
        """Returns features.

        Args:
            images: ``(N, 3, H, W)``, float32, normalised, any N of 1 or more: a numpy array, or
                contiguous memory of this GPU that speaks DLPack or ``__cuda_array_interface__``
                (a torch or CuPy array), which is read where it lies. There the type is that of
                the engine's input, :attr:`image_type`: float16 for an engine made so.

        Returns:
            ``(N, feature_dim)``, float32: a numpy array for a numpy array, else a
            :class:`~zoo.runtime.cuda.DeviceArray`.

        Raises:
            RunError: The images have another shape, type or place, or memory does not suffice.
        """
        if isinstance(images, np.ndarray):
            check_images(images, self._shape)
            with self._lane() as lane:
                return lane.run_host(np.ascontiguousarray(images, self.image_type))
        with self._lane() as lane:
            return lane.run_device(images)

    @contextmanager
    def pipeline(self) -> Iterator[LanePipeline]:
        """Opens a pipeline: a batch is copied to the GPU while the one before it runs there.

        When it is closed, its memory is not to be used any more, and features that have not been
        taken are lost.
        """
        with self._lane() as lane, closing(LanePipeline(lane)) as pipeline:
            yield pipeline

    def time_on_device(
        self, batch: int, profile: int, runs: int, *, cuda_graph: bool = True
    ) -> list[float]:
        """Times runs with CUDA events, data being on the GPU already.

        Args:
            batch: Images at once; the profile takes it.
            profile: Index of the profile to run it in.
            runs: How many to time, after warming up.
            cuda_graph: Whether to replay a captured graph or to enqueue each time.

        Returns:
            Milliseconds of each run.
        """
        with self._lane() as lane:
            return lane.time(batch, profile, runs, cuda_graph=cuda_graph)

    def close(self) -> None:
        """Frees contexts, streams and memory; the session can't be used afterwards."""
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
        """Type of the engine's input; numpy images are float32 and become it on the way."""
        half = self._engine.get_tensor_dtype(self.input) == self._trt.float16
        return np.dtype(np.float16 if half else np.float32)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image as the engine takes it."""
        return self.image_type.itemsize * int(np.prod(self._shape))

    def _profile(self, index: int) -> BatchRange:
        least, best, most = self._engine.get_tensor_profile_shape(self.input, index)
        return BatchRange(min=least[0], opt=best[0], max=most[0])

    def new_context(self, profile: int, stream: Stream) -> Bound:
        """Makes a context on a profile, when the GPU's free memory allows it."""
        need, free = self.profile_memory[profile], cuda.free_memory()
        if need > free:
            range_ = self.profiles[profile]
            raise RunError(
                f"batches of {range_.min} to {range_.max} need {need >> 20:,} MiB of device memory "
                f"and {free >> 20:,} MiB is free",
                hint="free some (nvidia-smi shows who has it), or give smaller batches: "
                + ", ".join(
                    f"up to {one.max} needs {memory >> 20:,} MiB"
                    for one, memory in zip(self.profiles, self.profile_memory, strict=True)
                ),
            )
        context = self._engine.create_execution_context()
        if context is None:
            raise RunError(f"TensorRT makes no context: {self._log.last}")
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
        raise RunError(f"the engine needs {name} {wanted}, which this version does not run")
    try:
        trt = import_module(RUNTIME_FACTS[kind].module)
    except (ImportError, OSError) as error:
        raise MissingPackageError(
            f"the engine needs {name} {wanted}, which can't be imported: {error}",
            hint=RUNTIME_FACTS[kind].install,
        ) from error
    have = str(trt.__version__).split(".")
    common = min(len(have), wanted.count(".") + 1)
    exact = have[:common] == wanted.split(".")[:common]
    if not exact and not inputs.options.get("version_compatible"):
        raise RunError(
            f"the engine needs {name} {wanted}, {trt.__version__} is installed here",
            hint=f"zoo show {inputs.model} lists engines of other versions; to build one: "
            f"make zoo MODELS={inputs.model} TRT={RuntimeLine(kind, '.'.join(have[:2])).asked}",
        )
    return trt


def _make_log(trt: Any) -> Any:
    """Returns a logger that keeps the last error: TensorRT gives reasons nowhere else."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.last = message

    return Log()


def _context_memory(engine: Any, profile: int) -> int:
    """Returns the device memory of a context, by whichever name this version has for it."""
    for name in ("get_device_memory_size_for_profile_v2", "get_device_memory_size_for_profile"):
        if hasattr(engine, name):
            return int(getattr(engine, name)(profile))
    for name in ("device_memory_size_v2", "device_memory_size"):
        if hasattr(engine, name):
            return int(getattr(engine, name))
    return 0
