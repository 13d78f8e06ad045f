"""Prepares an engine's batches, on its GPU if possible, otherwise on the host."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from zoo.caft.augment import Augmentation
from zoo.caft.decode import Batch, Decoder, HostBatches, PhotoDecoder
from zoo.caft.decode_process import Decoding
from zoo.caft.gpu_batches import GpuBatches, Lend, Slots, prepared
from zoo.caft.sample import Sample
from zoo.inference.extractor import Extractor
from zoo.inference.gpu.preparer import Preparer
from zoo.inference.preprocess import Exif
from zoo.runtime import cuda
from zoo.runtime.base import DeviceSession, Running, pipeline_of
from zoo.runtime.cuda import DeviceBatch
from zoo.util.errors import RunError

DecodeMode = Literal["auto", "pillow", "gpu", "fast"]
"""How photos are decoded. ``auto``: JPEG files on the GPU if it can, all others by Pillow; ``gpu``:
like ``auto``, but an error if the GPU can't; ``pillow``: by Pillow alone; ``fast``: by Pillow, with
JPEG files much larger than the engine's input decoded at a fraction of their size."""


@dataclass(frozen=True, kw_only=True)
class Feed:
    """An engine's batches, and the pipeline that runs them.

    Attributes:
        batches: Yields the batches of the given samples.
        begin: Starts the engine on a batch's images.
        ahead: Number of batches that may be started before the features of one are read.
        decoders: Names and versions of the decoders.
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
        decode: How photos are decoded.
        exif: Whether to apply the EXIF orientation of photos.

    Raises:
        RunError: The GPU does not have enough memory.
    """
    views = augmentation.views
    decoding = Decoding(exif=exif, fast=decode == "fast")
    photos = PhotoDecoder(extractor.preprocess, augmentation, workers=workers, decoding=decoding)
    session = extractor.session
    with ExitStack() as opened:
        preparers = extractor.preparers
        preparer = preparers and opened.enter_context(preparers.lend(samples * views))
        if preparers and preparer and isinstance(session, DeviceSession):
            decoder = preparer.decoder if decode in ("auto", "gpu") else None
            kind = GpuBatches(
                extractor.preprocess, augmentation, photos, jpegs=decoder is not None, exif=exif
            )
            slots = Decoder(kind, samples=samples, workers=workers, tasks=1)
            pipeline = opened.enter_context(session.pipeline(patient=True))
            lend: Lend = nullcontext
            if decoder is not None and cuda.free_memory() > preparer.most_memory:
                lend = partial(preparers.lend, samples * views)
            yield Feed(
                batches=partial(_prepared, slots, preparer, views, lend),
                begin=pipeline.begin_on_device,
                ahead=pipeline.ahead,
                decoders=(photos.name, *([decoder.name] if decoder else [])),
            )
            return
    with pipeline_of(session) as host_pipeline:
        host = HostBatches(extractor.preprocess, augmentation, photos, host_pipeline.host_memory)
        yield Feed(
            batches=Decoder(host, samples=samples, workers=workers).batches,
            begin=host_pipeline.begin,
            ahead=host_pipeline.ahead,
            decoders=(photos.name,),
        )


def _prepared(
    slots: Decoder[Slots], preparer: Preparer, views: int, lend: Lend, samples: Iterable[Sample]
) -> Generator[Batch[DeviceBatch], None, None]:
    return prepared(slots.batches(samples), preparer, views, lend)


def check_gpu_decodes(extractor: Extractor, rows: int) -> None:
    """Checks that the engine's GPU decodes JPEG files.

    Args:
        extractor: The engine.
        rows: Rows of the largest batch.

    Raises:
        RunError: It does not; the message has the reason.
    """
    reason = "the engine does not run on a GPU"
    if extractor.preparers is not None:
        with extractor.preparers.lend(rows) as preparer:
            if preparer is None:
                reason = extractor.preparers.missing
            elif preparer.decoder is not None:
                return
            else:
                reason = preparer.without_decoder
    raise RunError(
        f"photos can't be decoded on the GPU: {reason}",
        hint="zoo doctor shows what is missing; --decode auto decodes with Pillow instead",
    )
