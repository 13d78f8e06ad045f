"""An engine of TensorRT or TensorRT-RTX on a GPU: its tensors, profiles, memory and contexts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.runtime import cuda
from zoo.runtime.header import check_arch, check_engine, describe, read_file_header
from zoo.runtime.tensorrt.library import import_runtime, make_log
from zoo.schema.keys import BuildInputs
from zoo.schema.manifest import BatchRange
from zoo.schema.runtimes import title_of
from zoo.util.errors import RunError

if TYPE_CHECKING:
    from cuda.core import Buffer, Stream

FLOAT_BYTES = 4
"""Of a float32: what engines give."""


@dataclass(kw_only=True)
class Bound:
    """A context on one profile with its buffers, and the graphs captured from it."""

    context: Any
    images: Buffer
    features: Buffer
    batch: int = 0
    graphs: dict[int, Any] = field(default_factory=dict)


class LoadedEngine:
    """A deserialised engine.

    Args:
        engine: Path of the engine. Check its digest first: engines contain native code.
        inputs: The build inputs in the engine's record.
        size: Expected size in bytes, if known.
        cuda_graphs: Whether calls replay captured graphs.

    Attributes:
        device: The GPU.
        input: Name of the engine's input.
        output: Name of its output.
        input_shape: Channels, height and width of an image.
        width: Number of features per image.
        profiles: Batch ranges of the optimisation profiles.
        cuda_graphs: Whether calls replay captured graphs.
        host: Page-locked memory.

    Raises:
        RunError: The engine is for another GPU or TensorRT, is damaged, or can't be loaded.
        MissingPackageError: A package is not installed.
    """

    def __init__(
        self, engine: Path, inputs: BuildInputs, size: int | None, *, cuda_graphs: bool
    ) -> None:
        check_engine(engine, inputs, size)
        self.device = cuda.open_device()
        check_arch(inputs, self.device.compute_capability)
        self._trt = import_runtime(inputs)
        self.cuda_graphs = cuda_graphs
        self._log = make_log(self._trt)
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
        self.profiles = tuple(self._profile(index) for index in range(count))
        _, channels, height, width = self._dimensions(self.input, "(N, 3, H, W)", 4)
        self.input_shape = (channels, height, width)
        _, self.width = self._dimensions(self.output, "(N, features)", 2)
        self.host = cuda.HostPool()

    def close(self) -> None:
        """Releases the engine and its host memory; contexts must be gone."""
        self.host.close()
        self._engine = self._runtime = None

    def _dimensions(self, name: str, needed: str, rank: int) -> tuple[int, ...]:
        shape = tuple(map(int, self._engine.get_tensor_shape(name)))
        if len(shape) != rank:
            raise RunError(f"the engine's '{name}' has shape {shape}, expected {needed}")
        return shape

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

    def _profile(self, index: int) -> BatchRange:
        least, best, most = self._engine.get_tensor_profile_shape(self.input, index)
        return BatchRange(min=least[0], opt=best[0], max=most[0])

    @property
    def image_type(self) -> np.dtype[Any]:
        """Type of the engine's input, to which float32 numpy images are converted."""
        half = self._engine.get_tensor_dtype(self.input) == self._trt.float16
        return np.dtype(np.float16 if half else np.float32)

    @property
    def image_bytes(self) -> int:
        """Size in bytes of an image in the engine's input type."""
        return self.image_type.itemsize * int(np.prod(self.input_shape))

    @property
    def last_error(self) -> str:
        """The last error that TensorRT logged, which is the only place where it gives reasons."""
        return str(self._log.last)

    @property
    def profile_memory(self) -> tuple[int, ...]:
        """Device memory in bytes of a context for each profile, including buffers.

        TensorRT allocates the scratch memory of the largest profile for every context.
        """
        image = self.image_bytes + FLOAT_BYTES * self.width
        scratch = max(_context_memory(self._engine, n) for n in range(len(self.profiles)))
        return tuple(scratch + image * profile.max for profile in self.profiles)

    def inspect(self) -> str:
        """Returns the output of TensorRT's engine inspector for the layers as JSON."""
        inspector = self._engine.create_engine_inspector()
        text: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return text

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
        features = self.device.allocate(FLOAT_BYTES * most * self.width, stream=stream)
        return Bound(context=context, images=images, features=features)


def _context_memory(engine: Any, profile: int) -> int:
    """Returns the device memory of a context, whose attribute differs between versions."""
    for name in ("get_device_memory_size_for_profile_v2", "get_device_memory_size_for_profile"):
        if hasattr(engine, name):
            return int(getattr(engine, name)(profile))
    for name in ("device_memory_size_v2", "device_memory_size"):
        if hasattr(engine, name):
            return int(getattr(engine, name))
    return 0
