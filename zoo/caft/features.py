"""Extracts features: runs every image of a data set through a frozen backbone, once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.caft.augment import Augmentation
from zoo.caft.card import Card, Identity, Storage
from zoo.caft.decode import Batch, Decoded
from zoo.caft.feed import DecodeMode, Feed, check_gpu_decodes, open_feed
from zoo.caft.sample import Sample, Source
from zoo.caft.sources import open_source
from zoo.caft.writer import CacheWriter
from zoo.inference.extractor import Extractor
from zoo.runtime.base import Features, Running
from zoo.util.errors import DatasetError

Bad = Callable[[str, str], None]
"""Called with the name of each skipped image and the reason."""

Progress = Callable[["Pass"], None]
"""Called with the state of the pass after each batch."""


@dataclass(kw_only=True)
class Pass:
    """The state of a pass.

    Attributes:
        images: Images processed in this pass, skipped ones included.
        bad: Images skipped in this pass.
        before: Images processed by earlier passes.
        found: Of those, the ones that are still in the data set.
        rewritten: Of those, the ones whose files were modified since.
        seconds: Time since the start.
        in_engine: Time spent waiting for the engine, in seconds.
        started: Clock at the start.
    """

    images: int = 0
    bad: int = 0
    before: int = 0
    found: int = 0
    rewritten: int = 0
    seconds: float = 0.0
    in_engine: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def images_per_second(self) -> float:
        """Speed of this pass."""
        return self.images / self.seconds if self.seconds else 0.0


def cache_features(
    data: str | Path | Any,
    extractor: Extractor,
    folder: str | Path,
    *,
    augment: int = 0,
    seed: int = 0,
    storage: Storage = "fp32",
    batch: int | None = None,
    workers: int | None = None,
    decode: DecodeMode = "auto",
    moved: bool = False,
    on_bad: Bad = lambda name, reason: None,
    on_progress: Progress = lambda state: None,
) -> tuple[Card, Pass]:
    """Creates a feature cache, resumes an interrupted one or adds new images to it.

    Images are identified by name and skipped if the cache has them: after a kill only the batch in
    the engine is repeated, and if a data set has grown only its new images are processed. Images
    that were unusable in a finished pass are tried again. Rows of deleted or modified images stay;
    :class:`Pass` counts them.

    Args:
        data: See :func:`zoo.caft.sources.open_source`.
        extractor: The backbone.
        folder: The cache's folder.
        augment: Number of random views of each image besides the plain one.
        seed: Random seed of the views.
        storage: Data type of the stored features; fp16 halves the disk space.
        batch: Batch size, capped at the engine's largest; by default the one it is optimised for.
        workers: Number of decoding threads; by default the number of cores.
        decode: Who decodes photos; see :data:`zoo.caft.feed.DecodeMode`.
        moved: Whether to accept a data set at another path than the cache was made from.
        on_bad: Called for each skipped image.
        on_progress: Called after each batch.

    Returns:
        The cache's card, and the final state of this pass.

    Raises:
        DatasetError: The data set does not exist or has no images.
        CacheError: The cache holds features of another engine or data set, or another process is
            writing it.
        RunError: The engine failed.
    """
    source = open_source(data)
    augmentation = Augmentation(count=augment, seed=seed)
    name = _name(data)
    rows = min(batch or extractor.batch, extractor.record.inputs.batch.max)
    samples = max(1, rows // augmentation.views)
    _has_any(source, name)
    if decode == "gpu":
        check_gpu_decodes(extractor)
    identity = Identity.of(extractor, storage, augmentation, fast=decode == "fast")
    writer = CacheWriter(Path(folder), identity, name, moved=moved)
    state = Pass(before=len(writer.done))
    complete = False
    try:
        with open_feed(
            extractor, augmentation, samples=samples, workers=workers, decode=decode
        ) as feed:
            writer.decoded_by(feed.decoders)
            with closing(feed.batches(_new_samples(source, writer, state))) as batches:
                for outcomes, features in _run_batches(feed, batches, state):
                    writer.append(outcomes, features)
                    _count(outcomes, state, on_bad)
                    on_progress(state)
        complete = True
    finally:
        state.seconds = time.perf_counter() - state.started
        card = writer.close(complete=complete, seconds=state.seconds)
    return card, state


def _run_batches(
    feed: Feed, batches: Iterable[Batch[Any]], state: Pass
) -> Iterator[tuple[tuple[Decoded, ...], Features]]:
    """Yields each batch's outcomes and features while the engine runs the next batch.

    Batches that were started are yielded even if the source fails.
    """
    running: deque[tuple[tuple[Decoded, ...], Running]] = deque()

    def take() -> tuple[tuple[Decoded, ...], Features]:
        outcomes, run = running.popleft()
        with _clocked(state):
            return outcomes, run.features()

    try:
        for batch in batches:
            with _clocked(state):
                running.append((batch.outcomes, feed.begin(batch.images)))
            if len(running) > feed.ahead:
                yield take()
    except DatasetError:
        while running:
            yield take()
        raise
    while running:
        yield take()


@contextmanager
def _clocked(state: Pass) -> Iterator[None]:
    started = time.perf_counter()
    yield
    state.in_engine += time.perf_counter() - started


def _count(outcomes: Sequence[Decoded], state: Pass, on_bad: Bad) -> None:
    for outcome in outcomes:
        if outcome.error is not None:
            state.bad += 1
            on_bad(outcome.sample.name, outcome.error)
    state.images += len(outcomes)
    state.seconds = time.perf_counter() - state.started


def _name(data: str | Path | Any) -> str:
    """Returns a data set's name in the card: its absolute path, or the type of an object."""
    if not isinstance(data, (str, Path)):
        return type(data).__name__
    return str(data) if str(data).startswith("hf:") else str(Path(data).resolve())


def _new_samples(source: Source, writer: CacheWriter, state: Pass) -> Iterator[Sample]:
    """Yields the samples that are not in the cache, and counts the others."""
    for sample in source:
        if not writer.is_done(sample):
            yield sample
            continue
        state.found += 1
        if sample.path is not None and writer.is_older_than(sample.path):
            state.rewritten += 1


def _has_any(source: Source, name: str) -> None:
    """Checks that the data set has an image, before the cache's folder is created."""
    if next(iter(source), None) is None:
        raise DatasetError(
            f"{name} has no images",
            hint="supported are .jpg, .png, .webp, .bmp, .tif and .gif, in the folder or its "
            "subfolders",
        )
