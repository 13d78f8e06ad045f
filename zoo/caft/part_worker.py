"""Runs on a worker of a cluster: takes a part of a pass, and returns its features.

Dask gets the names of these functions and messages as bytes (:mod:`zoo.caft.wire`). The engine runs
in a child process, as a GPU of a local pass does, so what crashes it leaves the worker alive; the
process is kept for the next part of the same pass.
"""

from __future__ import annotations

import os
import platform
import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from pydantic import BaseModel, ConfigDict

from zoo.caft.engine_process import EndedError, EngineProcess, Task
from zoo.caft.engine_process import Outcome as ProcessOutcome
from zoo.caft.packing import is_same, sample_of
from zoo.caft.sample import Sample
from zoo.caft.wire import (
    LONGEST_REASON,
    PROTOCOL,
    Answer,
    Request,
    RowOutcome,
    Setup,
    message,
    parts_of,
)
from zoo.client.client import default_cache
from zoo.client.engine_files import EngineFiles
from zoo.client.host import all_installed, describe_gpu, visible_gpus
from zoo.inference.gpu.packages import NVJPEG
from zoo.repository.blobs import Blobs
from zoo.runtime.base import Features
from zoo.schema.records import BuildRecord
from zoo.schema.targets import Toolchain
from zoo.stores import open_store
from zoo.util.causes import cause_of, plain
from zoo.util.errors import RepositoryError, ZooError
from zoo.util.version import __version__

_KEPT_FOR = 60.0
"""Seconds that a process is kept after a part, if none follows and nobody ends the pass."""

_VECTOR = re.compile(r"avx\w*|fma\w*|f16c|sse4\w*|amx\w*|sve\w*|asimd\w*|bf16|i8mm")


class WorkerFacts(BaseModel):
    """A worker's description of itself.

    Attributes:
        version: Its version of this project.
        protocol: Its version of the messages.
        host: Name of its machine.
        archs: What it can run engines of, best first.
        toolchains: Its runtimes.
        driver: Version of its NVIDIA driver.
        gpu: Name of its GPU.
        vectors: The vector instructions of its CPU, on which the last bits of features depend.
        decoders: What decodes photos there.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: str
    protocol: int
    host: str
    archs: tuple[str, ...] = ()
    toolchains: tuple[Toolchain, ...] = ()
    driver: str | None = None
    gpu: str | None = None
    vectors: str = ""
    decoders: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def describe_worker() -> str:
    """Returns the :class:`WorkerFacts` of this process as JSON."""
    gpus = visible_gpus()
    gpu = describe_gpu() if gpus else None
    facts = WorkerFacts(
        version=__version__,
        protocol=PROTOCOL,
        host=platform.node(),
        archs=(*dict.fromkeys(gpu.arch for gpu in gpus), "cpu"),
        toolchains=tuple(all_installed().values()),
        driver=gpu.driver if gpu else None,
        gpu=gpu.name if gpu else None,
        vectors=_vectors(),
        decoders=(f"Pillow {PIL.__version__}", *_gpu_decoder()),
    )
    return facts.model_dump_json()


def _vectors() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                flags = line.partition(":")[2].split()
                return " ".join(sorted(flag for flag in flags if _VECTOR.fullmatch(flag)))
    return platform.machine()


def _gpu_decoder() -> tuple[str, ...]:
    try:
        return (f"nvJPEG {version(NVJPEG)}",)
    except PackageNotFoundError:
        return ()


def run_part(request: bytes) -> bytes:
    """Runs a :class:`~zoo.caft.wire.Request`; returns an :class:`~zoo.caft.wire.Answer`."""
    features: Sequence[memoryview] = ()
    try:
        answer, features = _run(request)
    except EndedError as error:
        answer = Answer(died=True, fault=plain(error.message))
    except ZooError as error:
        answer = Answer(fault=plain(error.message), hint=error.hint)
    except Exception as error:  # the outermost handler: the answer reports any error
        answer = Answer(fault=f"{type(error).__name__}: {cause_of(error)}")
    return message(answer, features)


def end_pass() -> None:
    """Ends the process of the engine, if no part is running."""
    _kept.end()


def _run(request: bytes) -> tuple[Answer, Sequence[memoryview]]:
    header, data = parts_of(request)
    asked = Request.model_validate_json(header)
    differ = tuple(n for n, entry in enumerate(asked.entries) if not is_same(entry))
    if differ:
        return Answer(differ=differ), ()
    samples, at = [], 0
    for entry in asked.entries:
        length = getattr(entry, "length", 0)
        samples.append(sample_of(entry, data[at : at + length]))
        at += length
    decoders, outcomes, features = _kept.run(asked.setup, samples)
    rows = tuple(RowOutcome(sha256=digest, error=_short(error)) for _, digest, error, _ in outcomes)
    return Answer(decoders=decoders, outcomes=rows), [
        np.ascontiguousarray(each, np.float32).data.cast("B") for each in features
    ]


def _short(error: str | None) -> str | None:
    return None if error is None else error[:LONGEST_REASON]


class _Process:
    """The process of an engine, kept between the parts of a pass. One part at a time uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._setup: Setup | None = None
        self._process: EngineProcess | None = None
        self._decoders: tuple[str, ...] = ()
        self._timer: threading.Timer | None = None

    def run(
        self, setup: Setup, samples: list[Sample]
    ) -> tuple[tuple[str, ...], list[ProcessOutcome], list[Features]]:
        """Runs samples; returns the decoders, the outcomes and the features by batch."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            try:
                process = self._opened(setup)
                outcomes, features = _exchange(process, samples, setup.samples)
            except BaseException:
                self._close()
                raise
            self._timer = threading.Timer(_KEPT_FOR, self.end)
            self._timer.daemon = True
            self._timer.start()
            return self._decoders, outcomes, features

    def end(self) -> None:
        """Ends the process unless it is in use."""
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()

    def _opened(self, setup: Setup) -> EngineProcess:
        if self._process is None or self._setup != setup:
            self._close()
            self._process = EngineProcess(_task(setup), f"the engine on {platform.node()}", {})
            self._setup = setup
            self._decoders = self._process.ready()
        return self._process

    def _close(self) -> None:
        process, self._process, self._setup = self._process, None, None
        if process is not None:
            process.close()


_kept = _Process()


def _exchange(
    process: EngineProcess, samples: list[Sample], size: int
) -> tuple[list[ProcessOutcome], list[Features]]:
    """Sends samples, and at the same time receives the results of their batches."""
    batches = [samples[start : start + size] for start in range(0, len(samples), size)]

    def send() -> None:
        with suppress(ZooError):  # then nothing can be received either, which says why
            for batch in batches:
                process.send(batch)
            process.finish()

    thread = threading.Thread(target=send, name="send", daemon=True)
    thread.start()
    outcomes, features = [], []
    try:
        for _ in batches:
            some, rows, _ = process.receive()
            outcomes += some
            features.append(rows)
    except BaseException:
        process.stop()
        raise
    finally:
        thread.join()
    return outcomes, features


def _task(setup: Setup) -> Task:
    record = BuildRecord.model_validate_json(setup.record)
    cores = len(os.sched_getaffinity(0))
    on_cpu = tuple(record.inputs.archs) == ("cpu",)
    share = max(1, setup.share)
    return Task(
        engine=_engine(setup, record),
        record=setup.record.encode(),
        augmentation=setup.augmentation,
        samples=setup.samples,
        workers=max(1, (setup.workers or cores) // share),
        decode=setup.decode,
        exif=setup.exif,
        threads=max(1, cores // share) if on_cpu and share > 1 else None,
    )


def _engine(setup: Setup, record: BuildRecord) -> Path:
    """Returns the path of the engine, downloaded if necessary; its digest is the record's."""
    store: Any = open_store(setup.store, anonymous=setup.anonymous)
    if store.local_path("x") is not None and store.size("repository.json") is None:
        raise RepositoryError(
            f"{setup.store} does not exist on {platform.node()}, where a worker needs it",
            hint="choose a --store that all machines can reach: s3://…, https://… or a shared "
            "folder at the same path",
        )
    return EngineFiles(Blobs(store), default_cache()).get(record.engine).resolve()
