"""Opens what runs a pass: an engine in this process, in processes of its own, or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from itertools import islice

from zoo.caft.card import Identity
from zoo.caft.cluster_runs import ClusterRuns, setup_of
from zoo.caft.decode import cores
from zoo.caft.engine_process import Task
from zoo.caft.feed import DecodeMode, open_feed
from zoo.caft.gpus import LONG_PASS, Environments, doubled, idle_gpus, own_gpu
from zoo.caft.handover import HandoverRuns
from zoo.caft.lookahead import Lookahead
from zoo.caft.runs import FeedRuns, Runs, Waiting
from zoo.caft.spread import Starting
from zoo.caft.workers import Workforce
from zoo.inference.extractor import Extractor
from zoo.inference.preprocess import Exif
from zoo.util.errors import ZooError


@contextmanager
def open_runs(
    extractor: Extractor,
    identity: Identity,
    new_samples: Lookahead,
    *,
    samples: int,
    workers: int | None,
    decode: DecodeMode,
    exif: Exif,
    gpus: Environments | None,
    cluster: Workforce | None,
    waiting: Waiting,
    ended: ExitStack,
) -> Iterator[Runs]:
    """Opens what runs the pass: the engine here, in other processes, or on a cluster.

    GPUs that were chosen run it or the pass fails; others only help. Processes are told to end on
    exit, and waited for by ``ended``: CUDA takes half a second.
    """
    augmentation = identity.augmentation
    if cluster is not None:
        setup = setup_of(
            cluster, augmentation, samples=samples, workers=workers, decode=decode, exif=exif
        )
        yield ClusterRuns(cluster, setup, width=extractor.feature_dim, waiting=waiting)
        return
    processes = _processes(extractor, new_samples, workers, decode, gpus)
    required = gpus is not None
    with ExitStack() as opened:
        starting: Starting | None = None
        if processes:
            assert extractor.file is not None
            task = Task(
                engine=extractor.file.resolve(),
                record=extractor.record.model_dump_json().encode(),
                augmentation=augmentation,
                storage=identity.storage,
                samples=samples,
                workers=max(1, (workers or cores()) // len(processes)),
                decode=decode,
                exif=exif,
            )
            with nullcontext() if required else suppress(ZooError):
                starting = Starting(task, processes, waiting=waiting)
                ended.callback(starting.close)
                opened.callback(starting.stop)
            own = own_gpu(extractor)
            if starting is not None and not (own and own.items() <= processes.items()):
                yield starting.wait()
                return
        feed = open_feed(
            extractor, augmentation, samples=samples, workers=workers, decode=decode, exif=exif
        )
        runs: Runs = FeedRuns(opened.enter_context(feed), waiting)
        if starting is not None:
            handover = HandoverRuns(runs, starting, samples=samples, required=required)
            opened.enter_context(closing(handover))
            opened.callback(starting.stop)  # first, so that its thread ends
            runs = handover
        yield runs


def _processes(
    extractor: Extractor,
    new_samples: Lookahead,
    workers: int | None,
    decode: DecodeMode,
    chosen: Environments | None,
) -> Environments:
    """Returns the processes of a pass, none if it runs in this one.

    Without ``chosen`` GPUs a long pass uses those that are idle, one for every ``LONG_PASS`` files.
    """
    chosen = chosen or {}
    if extractor.preparers is None or decode not in ("auto", "gpu"):
        return chosen
    gpus = chosen or idle_gpus(extractor)
    enough = new_samples.files(LONG_PASS * max(1, len(gpus))) // LONG_PASS
    if enough < max(1, len(chosen)):
        return chosen
    several = doubled(dict(islice(gpus.items(), enough)), extractor, workers)
    return several if chosen or len(several) > 1 else {}
