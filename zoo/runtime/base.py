"""Interfaces of sessions, which run engines, and checks of their input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from zoo.schema.manifest import BatchRange
from zoo.util.errors import RunError

if TYPE_CHECKING:  # numpy, too: who only checks an engine file does without
    import numpy as np
    import numpy.typing as npt
    from cuda.core import Device

    from zoo.runtime.cuda import DeviceBatch

Images: TypeAlias = "npt.NDArray[np.float32]"
Features: TypeAlias = "npt.NDArray[np.float32]"
Floats: TypeAlias = "npt.NDArray[np.floating[Any]]"


class Session(Protocol):
    """A loaded engine. A context manager; closing it releases its resources."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        ...

    def features(self, images: Images) -> Features:
        """Computes features.

        Args:
            images: Preprocessed images, ``(N, 3, H, W)`` float32, with N >= 1.

        Returns:
            ``(N, feature_dim)`` float32.

        Raises:
            RunError: The images have the wrong shape or type.
        """
        ...

    def close(self) -> None:
        """Releases the session's resources; it can't be used afterwards."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(self, *exception: object) -> None: ...


class Running(Protocol):
    """A batch submitted to an engine. Its features stay in the engine's memory until fetched."""

    def features(self, into: Floats | None = None) -> Floats:
        """Waits for the engine and returns the features in host memory. Call it only once.

        Args:
            into: Where they go, ``(N, feature_dim)``, in its data type; by default into memory of
                their own.
        """
        ...


class Pipeline(Protocol):
    """Runs batches asynchronously, so that the next is submitted before one has finished."""

    @property
    def ahead(self) -> int:
        """Maximum number of batches to submit beyond the one whose features are fetched next."""
        ...

    def host_memory(self, shape: tuple[int, ...]) -> Images:
        """Returns host memory for images that is fast to copy from; freed with the pipeline."""
        ...

    def begin(self, images: Images) -> Running:
        """Submits a batch.

        Args:
            images: Images as for :meth:`Session.features`. May be overwritten once this returns.

        Raises:
            RunError: The images have the wrong shape or type, or the engine fails.
        """
        ...


@runtime_checkable
class Pipelined(Protocol):
    """A session that can run batches asynchronously."""

    def pipeline(self, *, patient: bool = False) -> AbstractContextManager[Pipeline]:
        """Opens a pipeline for the calling thread.

        Args:
            patient: Whether a wait leaves the core to others; it then takes a little longer.
        """
        ...


class DevicePipeline(Pipeline, Protocol):
    """A pipeline that takes batches of the GPU's memory, too."""

    def begin_on_device(self, images: DeviceBatch) -> Running:
        """Has the engine begin with a batch as soon as it is ready, and records when it is read."""
        ...


@runtime_checkable
class DeviceSession(Protocol):
    """A session on a GPU."""

    @property
    def device(self) -> Device:
        """The GPU."""
        ...

    @property
    def image_type(self) -> np.dtype[Any]:
        """Type of the engine's input."""
        ...

    def pipeline(self, *, patient: bool = False) -> AbstractContextManager[DevicePipeline]:
        """Opens a pipeline for the calling thread; see :meth:`Pipelined.pipeline`."""
        ...


@contextmanager
def pipeline_of(session: Session) -> Iterator[Pipeline]:
    """Opens a session's patient pipeline, or a synchronous one if the session has none."""
    if isinstance(session, Pipelined):
        with session.pipeline(patient=True) as pipeline:
            yield pipeline
    else:
        yield _SynchronousPipeline(session)


class _SynchronousPipeline:
    ahead = 0

    def __init__(self, session: Session) -> None:
        self._session = session

    def host_memory(self, shape: tuple[int, ...]) -> Images:
        import numpy as np

        return np.empty(shape, np.float32)

    def begin(self, images: Images) -> Running:
        return _Finished(self._session.features(images))


class _Finished:
    def __init__(self, features: Features) -> None:
        self._features = features

    def features(self, into: Floats | None = None) -> Floats:
        if into is None:
            return self._features
        into[:] = self._features
        return into


@runtime_checkable
class DeviceTimed(Protocol):
    """A GPU session whose kernels can be timed without copies and call overhead."""

    @property
    def profiles(self) -> tuple[BatchRange, ...]:
        """Batch ranges of the optimisation profiles."""
        ...

    def time_on_device(
        self, batch: int, profile: int, runs: int, *, cuda_graph: bool = True
    ) -> list[float]:
        """Returns the milliseconds of each run, measured with CUDA events."""
        ...


def check_images(images: Any, shape: tuple[int, int, int]) -> None:
    """Checks type and shape of a batch before it is passed to a runtime.

    Args:
        images: The user's input.
        shape: Channels, height and width of the engine's input.

    Raises:
        RunError: The type or shape is wrong; says what was given and what is expected.
    """
    import numpy as np

    if not isinstance(images, np.ndarray):
        raise RunError(
            f"images are a {type(images).__name__}, but the engine needs a numpy array",
            hint="zoo.inference.preprocess.batch_of makes input from photos; a tensor has .numpy()",
        )
    if images.dtype != np.float32:
        raise RunError(
            f"images are {images.dtype}, but the engine needs float32",
            hint="zoo.inference.preprocess.batch_of makes ready input from photos",
        )
    if images.ndim != 4 or images.shape[1:] != shape or len(images) == 0:
        wanted = ", ".join(map(str, shape))
        raise RunError(
            f"images have shape {images.shape}, but the engine needs (N, {wanted}) with N >= 1",
            hint="zoo.inference.preprocess.batch_of makes ready input from photos",
        )


def check_size(engine: Path, size: int | None) -> None:
    """Checks the length of an engine file.

    Args:
        engine: Path of the file.
        size: Expected size in bytes, if known.

    Raises:
        RunError: The file has another size, or can't be read.
    """
    try:
        length = engine.stat().st_size
    except OSError as error:
        raise RunError(
            f"{engine}: can't be read: {error.strerror}", hint="download engines with zoo pull"
        ) from error
    if size not in (None, length):
        raise RunError(
            f"{engine.name} has {length:,} bytes instead of {size:,}: it is truncated or was "
            "modified",
            hint="download it again with zoo pull",
        )


def in_pieces(run: Callable[[Images], Features], images: Images, max_batch: int) -> Features:
    """Runs a batch of any size in pieces of at most the engine's maximum batch size."""
    if len(images) <= max_batch:
        return run(images)
    import numpy as np

    pieces = range(0, len(images), max_batch)
    return np.concatenate([run(images[start : start + max_batch]) for start in pieces])
