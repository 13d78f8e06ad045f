"""The interface of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from zoo.schema.manifest import BatchRange
from zoo.util.errors import RunError

if TYPE_CHECKING:
    from cuda.core import Device

    from zoo.runtime.cuda import DeviceBatch

Images = npt.NDArray[np.float32]
Features = npt.NDArray[np.float32]


class Session(Protocol):
    """An engine, ready to run. A context manager; closing frees what it holds."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        ...

    def features(self, images: Images) -> Features:
        """Returns features.

        Args:
            images: ``(N, 3, H, W)``, float32, normalised; any N of 1 or more.

        Returns:
            ``(N, feature_dim)``, float32.

        Raises:
            RunError: The images have another shape or type.
        """
        ...

    def close(self) -> None:
        """Frees what the session holds; it can't be used afterwards."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(self, *exception: object) -> None: ...


class Running(Protocol):
    """A batch that an engine is at, or has done. Its features stay where the engine left them."""

    def features(self) -> Features:
        """Waits for the engine, and returns the features in the host's memory; called once."""
        ...


class Pipeline(Protocol):
    """Batches through an engine, one begun before the features of another are taken."""

    @property
    def ahead(self) -> int:
        """Batches that may be begun beyond the one whose features are taken next."""
        ...

    def host_memory(self, shape: tuple[int, ...]) -> Images:
        """Returns memory to make images in, the best for this engine; gone with the pipeline."""
        ...

    def begin(self, images: Images) -> Running:
        """Has the engine begin with a batch.

        Args:
            images: As :meth:`Session.features` takes them. Its memory is free when this returns.

        Raises:
            RunError: The images have another shape or type, or the engine fails.
        """
        ...


@runtime_checkable
class Pipelined(Protocol):
    """A session that works while its caller does something else."""

    def pipeline(self) -> AbstractContextManager[Pipeline]:
        """Opens a pipeline, for the thread that calls it."""
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

    def pipeline(self) -> AbstractContextManager[DevicePipeline]:
        """Opens a pipeline, for the thread that calls it."""
        ...


@contextmanager
def pipeline_of(session: Session) -> Iterator[Pipeline]:
    """Opens the pipeline of a session; one that does each batch at once where it has none."""
    if isinstance(session, Pipelined):
        with session.pipeline() as pipeline:
            yield pipeline
    else:
        yield _AtOnce(session)


class _AtOnce:
    ahead = 0

    def __init__(self, session: Session) -> None:
        self._session = session

    def host_memory(self, shape: tuple[int, ...]) -> Images:
        return np.empty(shape, np.float32)

    def begin(self, images: Images) -> Running:
        return _Done(self._session.features(images))


class _Done:
    def __init__(self, found: Features) -> None:
        self._found = found

    def features(self) -> Features:
        return self._found


@runtime_checkable
class DeviceTimed(Protocol):
    """A session on a GPU, whose work can be timed apart from copies and calls."""

    @property
    def profiles(self) -> tuple[BatchRange, ...]:
        """Batch ranges of the optimisation profiles."""
        ...

    def time_on_device(
        self, batch: int, profile: int, runs: int, *, cuda_graph: bool = True
    ) -> list[float]:
        """Returns milliseconds of each run, by CUDA events."""
        ...


def check_images(images: Any, shape: tuple[int, int, int]) -> None:
    """Checks a batch before a runtime sees it.

    Args:
        images: What a user gave.
        shape: Channels, height and width that the engine takes.

    Raises:
        RunError: Another type or shape; says what is there and what is needed.
    """
    if not isinstance(images, np.ndarray):
        raise RunError(
            f"images are a {type(images).__name__}, a numpy array is needed",
            hint="zoo.inference.preprocess.batch_of makes input from photos; a tensor has .numpy()",
        )
    if images.dtype != np.float32:
        raise RunError(
            f"images are {images.dtype}, the engine takes float32",
            hint="zoo.inference.preprocess.batch_of makes ready input from photos",
        )
    if images.ndim != 4 or images.shape[1:] != shape or len(images) == 0:
        wanted = ", ".join(map(str, shape))
        raise RunError(
            f"images have shape {images.shape}, the engine takes (N, {wanted}) with N >= 1",
            hint="zoo.inference.preprocess.batch_of makes ready input from photos",
        )


def check_size(engine: Path, size: int | None) -> None:
    """Compares the length of an engine's file with its record.

    Args:
        engine: The file.
        size: Bytes that it should have, when that is known.

    Raises:
        RunError: It has another length, or can't be read.
    """
    try:
        length = engine.stat().st_size
    except OSError as error:
        raise RunError(
            f"{engine}: can't be read: {error.strerror}", hint="zoo pull fetches engines"
        ) from error
    if size not in (None, length):
        raise RunError(
            f"{engine.name} has {length:,} bytes, its record says {size:,}: it is cut short or "
            "was added to",
            hint="fetch it again with zoo pull",
        )


def in_pieces(run: Callable[[Images], Features], images: Images, max_batch: int) -> Features:
    """Runs a batch that may be larger than the engine's largest in pieces of that size."""
    if len(images) <= max_batch:
        return run(images)
    pieces = range(0, len(images), max_batch)
    return np.concatenate([run(images[start : start + max_batch]) for start in pieces])
