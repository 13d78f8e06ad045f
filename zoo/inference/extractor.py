"""The extractor: photos in, features out. An engine, with the preprocessing that belongs to it."""

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
from zoo.client.selection import Machine, why
from zoo.inference.gpu.photos import features_of
from zoo.inference.gpu.preparer import Preparers
from zoo.inference.preprocess import as_photo, batch_of
from zoo.runtime.base import DeviceSession
from zoo.schema.manifest import Preprocess
from zoo.schema.records import BuildRecord
from zoo.util.errors import RunError

if TYPE_CHECKING:
    from zoo.runtime import Session

Features = npt.NDArray[np.float32]
Photo = Image.Image | npt.NDArray[np.uint8] | Path | str | bytes

_AT_ONCE = 256
"""Photos that are prepared together: a call with a million photos must not hold them all."""


class Extractor:
    """A frozen backbone, ready to run. A context manager; closing frees what it holds.

    Args:
        session: The engine.
        record: Its build record.
        why: Why this engine was picked.
        file: The engine's file, where it has one.

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
        """Numbers that an image becomes."""
        return self.record.feature_dim

    @property
    def preprocess(self) -> Preprocess:
        """How a photo becomes the engine's input."""
        return self.record.inputs.preprocess

    @property
    def model(self) -> str:
        """The model's id."""
        return self.record.inputs.model

    @property
    def engine(self) -> str:
        """SHA-256 of the engine."""
        return self.record.engine.sha256

    @property
    def batch(self) -> int:
        """The batch that the engine is best at."""
        return self.record.inputs.batch.opt

    def __call__(self, images: Photo | Iterable[Photo] | Features | Any) -> Features | Any:
        """Returns features.

        Args:
            images: A photo or several: paths, the bytes of files, Pillow images, or uint8 pixels
                ``(H, W, 3)``, several of one size also as ``(N, H, W, 3)``; they go through
                :attr:`preprocess`, on the GPU if the engine runs there and ``[gpu-decode]`` is
                installed. Or a ready batch, ``(N, 3, H, W)`` float32, on the host, or on the GPU
                for an engine there (a torch or CuPy array).

        Returns:
            ``(N, feature_dim)`` float32, a row for each image; a numpy array, or for a batch on
            the GPU an array there (:class:`zoo.runtime.cuda.DeviceArray`).

        Raises:
            RunError: A photo can't be read, or an array has another shape or type.
        """
        if self._closed:
            raise RunError("this extractor is closed", hint="zoo.load opens another")
        if _is_ready(images):
            return self.session.features(_on_host(images))
        results = [self._features_of(part) for part in _parts(images, self._most)]
        return np.concatenate(results) if results else np.empty((0, self.feature_dim), np.float32)

    @property
    def _most(self) -> int:
        """Photos that are prepared together."""
        return min(_AT_ONCE, self.record.inputs.batch.max)

    def _features_of(self, photos: Sequence[Photo]) -> Features:
        """Runs photos that are prepared on the GPU of the engine, or else by Pillow."""
        if self.preparers is not None and isinstance(self.session, DeviceSession):
            with self.preparers.lend(self._most) as preparer:
                if preparer is not None:
                    return features_of(photos, self.session, preparer, self.preprocess)
        images = batch_of([as_photo(photo) for photo in photos], self.preprocess)
        return self.session.features(images)

    def close(self) -> None:
        """Frees the engine; the extractor can't be used afterwards."""
        self._closed = True
        if self.preparers is not None:
            self.preparers.close()
        self.session.close()

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def say(text: str) -> None:
    """Says something on standard error, where it is in nobody's way."""
    print(text, file=sys.stderr)


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
    client: Client | None = None,
    report: Callable[[str], None] = say,
) -> Extractor:
    """Finds the engine of a model that fits this machine best, fetches it, checks it, opens it.

    A download shows its progress where standard error is a terminal.

    Args:
        name: The model's id, as ``zoo list`` shows it.
        store: The repository; ``$ZOO_STORE``, else ``./_repository``.
        target: Label of the one target that is wanted, such as ``cpu-ort1.32-fp32``.
        precision: The one that is wanted.
        allow_pending: Whether an engine that has not been run on its GPU will do.
        allow_seeded: Whether a dry run's engine will do.
        machine: What this machine has; looked up when None.
        trust: The repository's root, the first time: a file, or its SHA-256.
        allow_stale: Whether an expired index will do.
        client: An open client of the repository, in place of ``store``.
        report: Takes what was picked, and why.

    Raises:
        RepositoryError: The repository is missing or damaged.
        TrustError: It is not trusted yet, or offers what its keys do not vouch for.
        SelectionError: No engine fits; says what is needed, what is here, and what to do.
        RunError: The engine does not load.
        MissingPackageError: Its runtime is not installed.
    """
    if client is None:
        url = store or default_store()
        client = connect(url, trust=trust, allow_stale=allow_stale, say=report)
    machine = machine or this_machine()
    entry = client.select(
        name,
        machine,
        target=target,
        precision=precision,
        allow_pending=allow_pending,
        allow_seeded=allow_seeded,
    )
    reason = f"{name}: {why(entry, machine)}"
    report(reason)
    with download_bar(entry.engine.size) as progress:
        pulled = client.pull(name, entry, progress)
    return Extractor(pulled.open(), pulled.record, reason, pulled.engine)


def _on_host(images: Any) -> Any:
    """Returns a batch of the host's memory as a numpy array, without a copy; any other as it is."""
    on_cpu = 1  # DLPack's name of the device
    if hasattr(images, "__dlpack_device__") and images.__dlpack_device__()[0] == on_cpu:
        return np.from_dlpack(images)
    return images


def _parts(images: Any, size: int) -> Iterator[Sequence[Photo]]:
    """Yields photos in order, up to a number at a time; those of one array as arrays.

    Raises:
        RunError: These are no photos.
    """
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4:
        if images.shape[3] != 3 or 0 in images.shape[1:3]:
            as_photo(images[0])  # says what is wrong with it
        for start in range(0, len(images), size):
            yield images[start : start + size]  # type: ignore[misc]  # rows are photos
        return
    single = isinstance(images, (str, bytes, Path, Image.Image))
    if single or (isinstance(images, np.ndarray) and images.ndim == 3):
        images = [images]
    if not isinstance(images, Iterable):
        raise RunError(
            f"an extractor takes photos or a batch of them, not a {type(images).__name__}"
        )
    photos = iter(images)
    while part := list(islice(photos, size)):
        yield part


def _is_ready(images: Any) -> bool:
    """Whether images are a float batch rather than photos."""
    if isinstance(images, np.ndarray):
        return bool(images.dtype.kind == "f")
    return hasattr(images, "__cuda_array_interface__") or hasattr(images, "__dlpack__")
