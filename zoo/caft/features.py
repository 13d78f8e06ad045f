"""Extracts features: runs every image of a data set through a frozen backbone, once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

from zoo.caft.arguments import check_callable, check_choice, check_kind, check_path, whole
from zoo.caft.augment import MOST_SEED, MOST_VIEWS, Augmentation
from zoo.caft.card import Card, Identity, Storage
from zoo.caft.cluster_runs import check_chosen
from zoo.caft.datasets import described
from zoo.caft.decode import Decoded
from zoo.caft.feed import DecodeMode, check_gpu_decodes
from zoo.caft.file_read import FileRead
from zoo.caft.gpus import Devices, chosen_gpus
from zoo.caft.labels import LabelChoice
from zoo.caft.lookahead import Lookahead
from zoo.caft.notes import notes_of
from zoo.caft.open_runs import open_runs
from zoo.caft.progress import pass_progress
from zoo.caft.recognise import Changes, Recogniser
from zoo.caft.same_source import SameSource
from zoo.caft.skipped import Bad, Skipped, has_any
from zoo.caft.sources import open_source
from zoo.caft.stamps import Stamps
from zoo.caft.workers import Workforce
from zoo.caft.writer import CacheWriter
from zoo.inference.extractor import Extractor
from zoo.inference.preprocess import Exif
from zoo.util.bars import is_watched
from zoo.util.errors import UsageError
from zoo.util.names import escaped
from zoo.util.shown import Shown

Progress = Callable[["Pass"], None]
"""Called with the state of the pass after each batch."""


@dataclass(kw_only=True, repr=False)
class Pass(Shown):
    """The state of a pass.

    Attributes:
        images: Images processed in this pass, skipped ones included.
        bad: Images skipped in this pass.
        before: Images that the cache had, by name.
        found: Images of the data set whose features the cache had.
        rewritten: Names whose content has changed; they were processed again.
        relabelled: Images whose label has changed.
        renamed: Images whose features the cache had under another name.
        gone: Names that are no longer in the data set; their rows were removed.
        reordered: Whether images have changed places.
        unlabelled: Images in the cache without a label.
        notes: What of the data set was left out, ignored or put together.
        seconds: Time since the start.
        in_engine: Time spent waiting for the engine, in seconds.
        started: Clock at the start.
    """

    images: int = 0
    bad: int = 0
    before: int = 0
    found: int = 0
    rewritten: int = 0
    relabelled: int = 0
    renamed: int = 0
    gone: int = 0
    reordered: bool = False
    unlabelled: int = 0
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    in_engine: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def images_per_second(self) -> float:
        """Speed of this pass."""
        return self.images / self.seconds if self.seconds else 0.0

    def _facts(self) -> dict[str, str]:
        numbers = {
            "skipped": self.bad,
            "already cached": self.found,
            "run again": self.rewritten,
            "relabelled": self.relabelled,
            "renamed": self.renamed,
            "removed": self.gone,
            "without a label": self.unlabelled,
        }
        return {
            "images": f"{self.images:,}",
            **{name: f"{number:,}" for name, number in numbers.items() if number},
            "seconds": f"{self.seconds:.1f}",
            **({"notes": "; ".join(self.notes)} if self.notes else {}),
        }


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
    devices: Devices | None = None,
    cluster: Workforce | None = None,
    moved: bool = False,
    exif: Exif = "ignore",
    image: str | None = None,
    label: LabelChoice = None,
    split: str | None = None,
    on_bad: Bad = lambda name, reason: None,
    on_progress: Progress | None = None,
) -> tuple[Card, Pass]:
    """Creates a feature cache, resumes an interrupted one or adds new images to it.

    Images are recognised by their content and not run again if the cache has them: after a kill
    only the batch in the engine is repeated, and if a data set has changed only its new images are
    processed. When the pass has finished, the cache is what a pass into an empty folder would have
    made: changed images and labels are replaced, rows of deleted images removed, and the order is
    that of the data set. :class:`Pass` counts the changes. Unusable images are tried again.

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
        devices: GPUs to run on, in other processes: their numbers, or ``all`` that the engine runs
            on. By default the engine runs in this process, and if tens of thousands of files are
            to be decoded on its GPU, in others once they have started: two on its GPU, and two on
            each idle GPU that it runs on, one GPU for every 32,768 files.
        cluster: Workers of a cluster to run on, whose :meth:`~zoo.caft.workers.Workforce.choose`
            returned the extractor.
        moved: Whether to accept a data set at another path than the cache was made from, if it has
            an image of the cache.
        exif: Whether to turn photos as their EXIF orientation says, ``apply`` or ``ignore``.
        image: See :func:`zoo.caft.sources.open_source`.
        label: See there.
        split: See there.
        on_bad: Called for each skipped image.
        on_progress: Called after each batch. By default a progress bar, in a notebook or where
            standard error is a terminal.

    Returns:
        The cache's card, and the final state of this pass.

    Raises:
        DatasetError: The data set does not exist or has no images, or none that can be used; then
            nothing is written.
        CacheError: The cache holds features of another engine or data set, or another process is
            writing it.
        RunError: The engine failed.
        UsageError: An argument is not one of its values.
    """
    check_kind("extractor", extractor, Extractor, "zoo.load")
    check_choice("storage", storage, get_args(Storage))
    check_choice("decode", decode, get_args(DecodeMode))
    check_choice("exif", exif, get_args(Exif))
    batch = batch if batch is None else whole("batch", batch, least=1)
    workers = workers if workers is None else whole("workers", workers, least=1)
    check_callable("on_bad", on_bad)
    if on_progress is not None:
        check_callable("on_progress", on_progress)
    check_path("folder", folder)
    if cluster is not None:
        check_kind("cluster", cluster, Workforce, "zoo.caft.workers.Workforce")
    source = open_source(data, image=image, label=label, split=split)
    augmentation = Augmentation(
        count=whole("augment", augment, least=0, most=MOST_VIEWS),
        seed=whole("seed", seed, least=-MOST_SEED, most=MOST_SEED),
    )
    name = _name(data, split)
    rows = min(batch or extractor.batch, extractor.record.inputs.batch.max)
    samples = max(1, rows // augmentation.views)
    has_any(source, name)
    if devices is not None and cluster is not None:
        raise UsageError("a pass runs either on GPUs of this machine or on a cluster, not on both")
    if cluster is not None:
        check_chosen(cluster, extractor)
    # Before the folder is created.
    gpus = None if devices is None else chosen_gpus(devices, extractor)
    if decode == "gpu" and cluster is None:
        check_gpu_decodes(extractor, samples * augmentation.views)
    identity = Identity.of(extractor, storage, augmentation, exif, fast=decode == "fast")
    former = (str(data), type(data).__name__)  # names in cards of earlier versions
    writer = CacheWriter(Path(folder), identity, name, moved=moved, former=former)
    stamps = Stamps(Path(folder), writable=writer.writable)
    recogniser: Recogniser | None = None
    state = Pass()
    skipped = Skipped(on_bad)
    complete = False
    with ExitStack() as ended:
        try:
            recogniser = _recogniser(writer, stamps, workers)
            state.before = recogniser.before
            if not isinstance(data, (str, Path)) or writer.source_before != name:
                SameSource(
                    recogniser=recogniser,
                    source=source,
                    name=name,
                    had=writer.source_before,
                    moved=moved,
                ).check()
            with (
                closing(Lookahead(recogniser.new_samples(source))) as new_samples,
                open_runs(
                    extractor,
                    identity,
                    new_samples,
                    samples=samples,
                    workers=workers,
                    decode=decode,
                    exif=exif,
                    gpus=gpus,
                    cluster=cluster,
                    waiting=partial(_clocked, state),
                    ended=ended,
                ) as runs,
                closing(runs.results(new_samples)) as results,
                _progress(on_progress, data, image=image, label=label, split=split) as show,
            ):
                writer.decoded_by(runs.decoders)
                for result in results:
                    writer.decoded_by(runs.decoders)  # workers of a cluster say it with the result
                    writer.append(result.outcomes, result.features, result.sums)
                    _stamp(stamps, result.outcomes)
                    _count(result.outcomes, state, skipped)
                    show(state)
            if state.bad == state.images and not recogniser.changes.kept:
                raise skipped.nothing_usable(name, source, state.bad)
            complete = True
        finally:
            state.seconds = time.perf_counter() - state.started
            stamps.close(complete=complete)
            draft = None if recogniser is None else recogniser.draft
            card = writer.close(complete=complete, seconds=state.seconds, draft=draft)
    _tell_changes(recogniser.changes, state)
    state.unlabelled = writer.unlabelled
    state.notes = notes_of(source)
    return card, state


@contextmanager
def _progress(given: Progress | None, data: Any, **chosen: Any) -> Iterator[Progress]:
    """Yields what shows the progress of a pass: what is given, or a bar if somebody watches."""
    if given is not None:
        yield given
    elif is_watched():
        with pass_progress(data, **chosen) as progress:
            yield progress.show
    else:
        yield lambda state: None


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


def _name(data: str | Path | Any, split: str | None) -> str:
    """Returns a data set's name in the card: its absolute path, or a description of an object."""
    if not isinstance(data, (str, Path)):
        return escaped(described(data))
    text = str(data)
    if not text.startswith("hf:"):
        path = Path(text).resolve()
        return escaped(str(path) if split is None else str(path / split))
    name, _, named = text.removeprefix("hf:").partition(":")
    parts = [str(Path(name).resolve()) if Path(name).is_dir() else name, named or split or ""]
    return escaped("hf:" + ":".join(part for part in parts if part))


def _recogniser(writer: CacheWriter, stamps: Stamps, workers: int | None) -> Recogniser:
    return Recogniser(
        writer.folder,
        writer.old,
        stamps,
        writable=writer.writable,
        workers=workers or len(os.sched_getaffinity(0)),
    )


def _stamp(stamps: Stamps, outcomes: Sequence[Decoded]) -> None:
    """Notes the stamps of the files of a batch."""
    for outcome in outcomes:
        read = outcome.sample.read
        if outcome.error is None and isinstance(read, FileRead):
            stamps.add(read.stamp, outcome.sha256)
    stamps.flush()


def _tell_changes(changes: Changes, state: Pass) -> None:
    state.found = changes.kept
    state.rewritten = changes.replaced
    state.relabelled = changes.relabelled
    state.renamed = changes.renamed
    state.gone = changes.gone
    state.reordered = changes.reordered
