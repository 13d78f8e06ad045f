"""The pass: every image of a data set through a frozen backbone, once."""

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
from zoo.caft.decode import Batch, Decoded, Decoder
from zoo.caft.sample import Sample, Source
from zoo.caft.sources import open_source
from zoo.caft.writer import CacheWriter
from zoo.inference.extractor import Extractor
from zoo.runtime.base import Features, Pipeline, Running, pipeline_of
from zoo.util.errors import DatasetError

Bad = Callable[[str, str], None]
"""Takes the name of an image that is left out, and why."""

Progress = Callable[["Pass"], None]
"""Takes where a pass stands, after each batch."""


@dataclass(kw_only=True)
class Pass:
    """Where a pass stands.

    Attributes:
        images: Done in this pass, the bad ones among them.
        bad: Left out in this pass.
        before: Images that passes before this one had done.
        found: Of them, those that the data set still has.
        rewritten: Of those, the ones whose files have been written since.
        seconds: Since it began.
        in_engine: Of them, seconds in which it waited for the engine.
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
        """Of this pass."""
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
    moved: bool = False,
    on_bad: Bad = lambda name, reason: None,
    on_progress: Progress = lambda state: None,
) -> tuple[Card, Pass]:
    """Makes a feature cache, or goes on with one.

    Images that are in the cache already are left alone, by their names: after a kill nothing but
    what the engine was at is done twice, and a data set that has grown costs what is new in it.
    After a pass that came to its end, those that could not be used are tried again. Rows of images
    that are gone or have changed stay; :class:`Pass` counts them.

    Args:
        data: See :func:`zoo.caft.sources.open_source`.
        extractor: The backbone.
        folder: The cache.
        augment: Random views of each image beside the plain one.
        seed: What they are drawn from.
        storage: Type of the stored features; fp16 takes half of the disk.
        batch: Images at once, no more than the engine takes; what it is best at when None.
        workers: Threads that decode; as many as there are cores when None.
        moved: Whether the data set lies in another place than when the cache was begun.
        on_bad: Takes each image that is left out.
        on_progress: Takes where the pass stands, after each batch.

    Returns:
        The cache's card, and this pass.

    Raises:
        DatasetError: There is no such data set, or not one image in it.
        CacheError: The cache holds rows of another engine, or another process writes it.
        RunError: The engine failed.
    """
    source = open_source(data)
    augmentation = Augmentation(count=augment, seed=seed)
    name = _name(data)
    rows = min(batch or extractor.batch, extractor.record.inputs.batch.max)
    samples = max(1, rows // augmentation.views)
    _has_any(source, name)
    identity = Identity.of(extractor, storage, augmentation)
    writer = CacheWriter(Path(folder), identity, name, moved=moved)
    state = Pass(before=len(writer.done))
    complete = False
    try:
        with pipeline_of(extractor.session) as pipeline:
            decoder = Decoder(
                extractor.preprocess,
                augmentation,
                samples=samples,
                workers=workers,
                memory=pipeline.host_memory,
            )
            with closing(decoder.batches(_new(source, writer, state))) as batches:
                for outcomes, features in _through(pipeline, batches, state):
                    writer.append(outcomes, features)
                    _count(outcomes, state, on_bad)
                    on_progress(state)
        complete = True
    finally:
        state.seconds = time.perf_counter() - state.started
        card = writer.close(complete=complete, seconds=state.seconds)
    return card, state


def _through(
    pipeline: Pipeline, batches: Iterable[Batch], state: Pass
) -> Iterator[tuple[tuple[Decoded, ...], Features]]:
    """Yields what was in each batch, and its features, while the engine goes on with the next.

    What has been begun comes out even where the source fails.
    """
    running: deque[tuple[tuple[Decoded, ...], Running]] = deque()

    def take() -> tuple[tuple[Decoded, ...], Features]:
        outcomes, batch = running.popleft()
        with _clocked(state):
            return outcomes, batch.features()

    try:
        for made in batches:
            with _clocked(state):
                running.append((made.outcomes, pipeline.begin(made.images)))
            if len(running) > pipeline.ahead:
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
    for one in outcomes:
        if one.error is not None:
            state.bad += 1
            on_bad(one.sample.name, one.error)
    state.images += len(outcomes)
    state.seconds = time.perf_counter() - state.started


def _name(data: str | Path | Any) -> str:
    """Names a data set: by its place, wherever it is called from; an object by its type."""
    if not isinstance(data, (str, Path)):
        return type(data).__name__
    return str(data) if str(data).startswith("hf:") else str(Path(data).resolve())


def _new(source: Source, writer: CacheWriter, state: Pass) -> Iterator[Sample]:
    """Yields the samples that no pass has done yet, and counts what became of the others."""
    for sample in source:
        if not writer.is_done(sample):
            yield sample
            continue
        state.found += 1
        if sample.path is not None and writer.is_older_than(sample.path):
            state.rewritten += 1


def _has_any(source: Source, name: str) -> None:
    """Checks that there is an image before a folder is made for its features."""
    if next(iter(source), None) is None:
        raise DatasetError(
            f"{name}: no images in it",
            hint="images are .jpg, .png, .webp, .bmp, .tif or .gif, in the folder or in folders "
            "of it",
        )
