"""Feature extractor: an engine together with its model's preprocessing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.client.client import Client, connect, default_store
from zoo.client.host import this_machine
from zoo.client.progress import download_bar
from zoo.client.selection import Machine, select, why
from zoo.inference.gpu.photos import features_of
from zoo.inference.gpu.preparer import Preparers
from zoo.inference.preprocess import as_photo, batch_of
from zoo.runtime.base import DeviceSession
from zoo.schema.manifest import Preprocess
from zoo.schema.records import BuildRecord
from zoo.util.causes import cause_of
from zoo.util.errors import RunError
from zoo.util.shown import Shown
from zoo.util.terminal import harmless

if TYPE_CHECKING:
    from zoo.runtime import Session

Features = npt.NDArray[np.float32]
Photo = Image.Image | npt.NDArray[np.uint8] | Path | str | bytes

_DLPACK_CPU = 1  # kDLCPU of DLDeviceType in dlpack.h
_CHUNK_SIZE = 256
"""Photos preprocessed at a time, so that a call with a million photos does not hold them all."""


class Extractor(Shown):
    """A loaded backbone that turns images into features.

    Use as a context manager, or call :meth:`close` to release the engine's resources.

    Args:
        session: The loaded engine.
        record: The engine's build record.
        why: Why this engine was selected.
        file: The engine file, or None if the engine was not loaded from a file.

    Attributes:
        preparers: Prepare photos on the engine's GPU; None if it does not run on one.
    """

    def __init__(
        self, session: Session, record: BuildRecord, why: str = "", file: Path | None = None
    ) -> None:
        self.session = session
        self.record = record
        self.why = why
        self.file = file
        self._closed = False
        self.preparers = (
            Preparers(session, record.inputs.preprocess)
            if isinstance(session, DeviceSession)
            else None
        )

    @property
    def feature_dim(self) -> int:
        """Number of features per image."""
        return self.record.feature_dim

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing that the model was trained with."""
        return self.record.inputs.preprocess

    @property
    def model(self) -> str:
        """The model's id."""
        return self.record.inputs.model

    @property
    def engine(self) -> str:
        """SHA-256 of the engine file."""
        return self.record.engine.sha256

    @property
    def batch(self) -> int:
        """Batch size that the engine is optimised for."""
        return self.record.inputs.batch.opt

    def __call__(self, images: Photo | Iterable[Photo] | Features | Any) -> Features | Any:
        """Computes the features of images.

        Args:
            images: A photo or several: paths, the bytes of files, Pillow images, or uint8 pixels
                ``(H, W, 3)``, several of one size also as ``(N, H, W, 3)``; they go through
                :attr:`preprocess`, on the GPU if the engine runs there and ``[gpu-decode]`` is
                installed. Or a ready batch, ``(N, 3, H, W)`` float32, on the host, or on the GPU
                for an engine there (a torch or CuPy array).

        Returns:
            ``(N, feature_dim)`` float32, one row per image: a numpy array, or a
            :class:`zoo.runtime.cuda.DeviceArray` if the batch is in GPU memory.

        Raises:
            RunError: A photo can't be read, or an array has the wrong shape or type.
        """
        if self._closed:
            raise RunError("this extractor is closed", hint="open a new one with zoo.load")
        images = _as_numpy_if_on_host(images)
        if _is_batch(images):
            return self.session.features(images)
        results = [self._features_of(part) for part in _parts(images, self._most)]
        return np.concatenate(results) if results else np.empty((0, self.feature_dim), np.float32)

    @property
    def _most(self) -> int:
        """Photos that are prepared together."""
        return min(_CHUNK_SIZE, self.record.inputs.batch.max)

    def _features_of(self, photos: Sequence[Photo]) -> Features:
        """Runs photos that are prepared on the GPU of the engine, or else by Pillow."""
        if self.preparers is not None and isinstance(self.session, DeviceSession):
            with self.preparers.lend(self._most) as preparer:
                if preparer is not None:
                    return features_of(
                        photos, self.session, preparer, self.preprocess, self.feature_dim
                    )
        images = batch_of([as_photo(photo) for photo in photos], self.preprocess)
        return self.session.features(images)

    def close(self) -> None:
        """Releases the engine; the extractor can't be used afterwards."""
        self._closed = True
        if self.preparers is not None:
            self.preparers.close()
        self.session.close()

    def _facts(self) -> dict[str, str]:
        preprocess = self.preprocess
        return {
            "model": self.model,
            "target": self.record.targets[0],
            "input": f"{preprocess.pixels} px",
            "features": f"{self.feature_dim:,}",
            "batch": f"up to {self.record.inputs.batch.max:,}, best {self.batch:,}",
            "engine": self.engine[:12],
        } | ({"state": "closed"} if self._closed else {})

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def say(text: str) -> None:
    """Prints a message to standard error, keeping standard output for results."""
    print(harmless(text), file=sys.stderr)


def load(
    name: str,
    *,
    store: str | None = None,
    target: str | None = None,
    precision: str | None = None,
    allow_pending: bool = False,
    allow_seeded: bool = False,
    machine: Machine | None = None,
    trust: str | None = None,
    allow_stale: bool = False,
    anonymous: bool = False,
    client: Client | None = None,
    report: Callable[[str], None] = say,
) -> Extractor:
    """Selects, downloads, checks and loads the best engine of a model for this machine.

    Downloads show a progress bar if standard error is a terminal.

    Args:
        name: Model id, as listed by ``zoo list``.
        store: URL or path of the repository. Defaults to ``$ZOO_STORE``, else ``./_repository``.
        target: Target label, such as ``cpu-ort1.32-fp32``. Defaults to the best one for this
            machine.
        precision: Precision to load. By default fp16 or bf16 are preferred, then fp32, then int8.
        allow_pending: Accept an engine that has not been verified on its GPU yet.
        allow_seeded: Accept an engine from a dry run, whose weights are seeded, not trained.
        machine: GPUs and runtimes to select for. Defaults to this machine's.
        trust: Root of trust on first use of the repository: a file, or its SHA-256.
        allow_stale: Accept an expired index.
        anonymous: Read a bucket without credentials.
        client: Client to use instead of connecting to ``store``.
        report: Called with the name of the selected engine and the reason.

    Raises:
        RepositoryError: The repository is missing or damaged.
        TrustError: The repository is not trusted yet, or its signatures are not valid.
        SelectionError: No engine fits; the message lists what is required, what is installed and
            what to do.
        RunError: The engine can't be loaded.
        MissingPackageError: The engine's runtime is not installed.
    """
    if client is None:
        url = store or default_store()
        client = connect(url, trust=trust, allow_stale=allow_stale, anonymous=anonymous, say=report)
    machine = machine or this_machine()
    index = client.model(name)
    entry = select(
        index,
        machine,
        target=target,
        precision=precision,
        allow_pending=allow_pending,
        allow_seeded=allow_seeded,
    )
    reason = f"{name}: {why(entry, machine, index)}"
    report(reason)
    with download_bar(entry.engine.size) as progress:
        pulled = client.pull(name, entry, progress)
    for sentence in client.corrections(name, entry):
        report(sentence)
    return Extractor(pulled.open(), pulled.record, reason, pulled.engine)


def _as_numpy_if_on_host(images: Any) -> Any:
    """Returns a tensor in host memory as a numpy array without copying, all else unchanged.

    Raises:
        RunError: NumPy has no such tensors.
    """
    if isinstance(images, np.ndarray) or not hasattr(images, "__dlpack_device__"):
        return images
    try:
        if images.__dlpack_device__()[0] == _DLPACK_CPU:
            return np.from_dlpack(images)
    except Exception as error:  # libraries raise errors of many classes
        raise RunError(
            f"a {type(images).__name__} of type {getattr(images, 'dtype', 'unknown')} is no array "
            f"for NumPy: {cause_of(error)}",
            hint="detach it from its gradient, and convert it to a dense float32 or uint8 tensor",
        ) from error
    return images


def _parts(images: Any, size: int) -> Iterator[Sequence[Photo]]:
    """Yields photos in order, up to a number at a time; those of one array as arrays.

    Raises:
        RunError: These are no photos.
    """
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4:
        if images.shape[3] != 3 or 0 in images.shape[1:3]:
            as_photo(np.empty(images.shape[1:], np.uint8))  # says what is wrong with each
        for start in range(0, len(images), size):
            yield images[start : start + size]  # type: ignore[misc]  # rows are photos
        return
    if isinstance(images, (bytearray, memoryview)):
        images = bytes(images)
    single = isinstance(images, (str, bytes, Path, Image.Image))
    if single or (isinstance(images, np.ndarray) and images.ndim in (2, 3)):
        images = [images]
    if not isinstance(images, Iterable):
        raise _no_photos(images)
    try:
        photos = iter(images)
    except TypeError as error:  # such as an array without dimensions
        raise _no_photos(images) from error
    while part := list(islice(photos, size)):
        yield part


def _no_photos(images: Any) -> RunError:
    shape = getattr(images, "shape", None)
    what = type(images).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")
    return RunError(
        f"expected photos or a batch of preprocessed images, got {what}",
        hint="pass a photo, a list of photos, uint8 (N, H, W, 3) or float32 (N, 3, H, W)",
    )


def _is_batch(images: Any) -> bool:
    """Returns whether the input is a preprocessed float batch rather than photos."""
    if isinstance(images, np.ndarray):
        return bool(images.dtype.kind == "f")
    return hasattr(images, "__cuda_array_interface__") or hasattr(images, "__dlpack__")
