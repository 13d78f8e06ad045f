"""Feeds an engine: its batches are prepared on its GPU if that can be, else on the host."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from zoo.caft.augment import Augmentation
from zoo.caft.decode import Batch, Decoder, HostBatches, PhotoDecoder
from zoo.caft.decode_process import Decoding
from zoo.caft.gpu_batches import GpuBatches, prepared
from zoo.caft.sample import Sample
from zoo.inference.extractor import Extractor
from zoo.inference.gpu.preparer import Preparer
from zoo.inference.preprocess import Exif
from zoo.runtime.base import DeviceSession, Running, pipeline_of
from zoo.util.errors import MissingPackageError, RunError

DecodeMode = Literal["auto", "pillow", "gpu", "fast"]
"""Who decodes photos: ``auto`` is the GPU for JPEG files where it can, and Pillow for the rest;
``gpu`` is the same and insists on a GPU that can; ``pillow`` is Pillow alone; ``fast`` is Pillow,
which decodes JPEG files much larger than the engine's input at a fraction of their size."""


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Batches, and the pipeline that runs them.

    Attributes:
        batches: Yields the batches of some samples.
        begin: Has the engine begin with a batch's images.
        ahead: Batches that may be begun beyond the one whose features are taken next.
        decoders: What decodes, with versions.
    """

    batches: Callable[[Iterable[Sample]], Generator[Batch[Any], None, None]]
    begin: Callable[[Any], Running]
    ahead: int
    decoders: tuple[str, ...]


@contextmanager
def open_feed(
    extractor: Extractor,
    augmentation: Augmentation,
    *,
    samples: int,
    workers: int | None,
    decode: DecodeMode,
    exif: Exif = "ignore",
) -> Iterator[Feed]:
    """Opens the feed of an engine.

    Args:
        extractor: The engine.
        augmentation: The views of each image.
        samples: Samples per batch.
        workers: Number of decoding threads; by default the number of cores.
        decode: Who decodes.
        exif: Whether to turn photos as their EXIF orientation says.

    Raises:
        RunError: The GPU's memory does not suffice.
    """
    views = augmentation.views
    decoding = Decoding(exif=exif, fast=decode == "fast")
    photos = PhotoDecoder(extractor.preprocess, augmentation, workers=workers, decoding=decoding)
    session = extractor.session
    hardware = decode in ("auto", "gpu")
    preparer, _ = _open_preparer(extractor, samples * views, hardware=hardware)
    if preparer is not None and isinstance(session, DeviceSession):
        jpegs = preparer.decoder
        kind = GpuBatches(
            extractor.preprocess, augmentation, photos, jpegs=jpegs is not None, exif=exif
        )
        slots = Decoder(kind, samples=samples, workers=workers)
        with closing(preparer), session.pipeline() as pipeline:
            yield Feed(
                batches=lambda source: prepared(slots.batches(source), preparer, views),
                begin=pipeline.begin_on_device,
                ahead=pipeline.ahead,
                decoders=(photos.name, *([jpegs.name] if jpegs else [])),
            )
        return
    with pipeline_of(session) as pipeline:
        host = HostBatches(extractor.preprocess, augmentation, photos, pipeline.host_memory)
        decoder = Decoder(host, samples=samples, workers=workers)
        yield Feed(
            batches=decoder.batches,
            begin=pipeline.begin,
            ahead=pipeline.ahead,
            decoders=(photos.name,),
        )


def check_gpu_decodes(extractor: Extractor) -> None:
    """Checks that the engine's GPU decodes JPEG files.

    Raises:
        RunError: It does not; says why.
    """
    preparer, reason = _open_preparer(extractor, 1, hardware=True)
    if preparer is not None:
        preparer.close()
    if preparer is None or preparer.decoder is None:
        raise RunError(
            f"photos can't be decoded on the GPU: {reason}",
            hint="zoo doctor says what is missing; --decode auto decodes with Pillow instead",
        )


def _open_preparer(
    extractor: Extractor, rows: int, *, hardware: bool
) -> tuple[Preparer | None, str]:
    """Returns what prepares photos on the engine's GPU, and what it lacks."""
    session = extractor.session
    if not isinstance(session, DeviceSession):
        return None, "the engine does not run on a GPU"
    try:
        preparer = Preparer(session, extractor.preprocess, rows, hardware=hardware)
    except MissingPackageError as error:
        return None, error.message
    return preparer, preparer.without_decoder
