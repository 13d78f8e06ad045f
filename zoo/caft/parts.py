"""Parts of a pass over a cluster: ranges of samples that are run by one worker each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from zoo.caft.packing import Packed, pack
from zoo.caft.runs import Result
from zoo.caft.sample import Sample
from zoo.inference.preprocess import Exif
from zoo.util.errors import RunError
from zoo.util.names import counted

DEATHS = 3
"""Number of workers that may die of a part before the pass ends."""

MOST_SENT = 64 << 20
"""Bytes of images in a message, unless one batch has more."""

_MOST_SAMPLES = 4096
_MOST_FEATURES = 16 << 20  # bytes of features in an answer, unless one batch has more
_SHORT, _LONG = 4.0, 16.0  # seconds of a part that make the next ones larger, or smaller


@dataclass(kw_only=True, eq=False)
class Part:
    """Consecutive samples that are new: whole batches, except at the end of the data set.

    Attributes:
        packed: The samples.
        running: Attempts that have not ended.
        died_on: Names of workers that died of it.
        not_finite: Name of a worker that returned features that are not finite.
        result: Its result, once there is one.
        failure: Why there will be none.
        counted: Whether the reader may make another when it has been yielded; of those that one
            was split into, the first.
    """

    packed: list[Packed]
    running: list[Any] = field(default_factory=list)
    died_on: list[str] = field(default_factory=list)
    not_finite: str | None = None
    result: Result | None = None
    failure: BaseException | None = None
    counted: bool = True

    @property
    def ended(self) -> bool:
        """Whether it has a result or never will."""
        return self.result is not None or self.failure is not None

    @property
    def size(self) -> int:
        """Bytes of its images."""
        return sum(packed.size for packed in self.packed)

    def count_death(self, worker: str) -> None:
        """Counts the death of a worker; after several there will be no result."""
        self.died_on.append(worker)
        if len(self.died_on) >= DEATHS:
            first, last = self.packed[0].sample.name, self.packed[-1].sample.name
            self.failure = RunError(
                f"{len(self.died_on)} workers died while running the "
                f"{counted(len(self.packed), 'image')} from {first} to {last}: "
                f"{', '.join(self.died_on)}",
                hint="the images before them are in the cache; to find the one that crashes the "
                "decoder, run without --scheduler and with --workers 5",
            )

    def split(self, samples: int, most: int = 0) -> list[Part]:
        """Returns parts of whole batches, with at most so many bytes each unless one has more.

        Args:
            samples: Samples per batch.
            most: Bytes; 0 for a part per batch.
        """
        parts: list[Part] = []
        for start in range(0, len(self.packed), samples):
            batch = Part(packed=self.packed[start : start + samples], died_on=list(self.died_on))
            if parts and parts[-1].size + batch.size <= most:
                parts[-1].packed += batch.packed
            else:
                batch.counted = self.counted and not parts
                parts.append(batch)
        return parts


class PartSize:
    """The number of batches in a part: one at first, then as many as a worker does in seconds.

    Small parts share a small data set among all workers; large ones cost less.

    Args:
        samples: Samples per batch.
        row: Bytes of a sample's features.
    """

    def __init__(self, samples: int, row: int) -> None:
        self._samples = samples
        self._most = max(1, min(_MOST_SAMPLES, _MOST_FEATURES // row) // samples)
        self.batches = 1

    def learn(self, part: Part, seconds: float) -> None:
        """Takes account of how long a part took."""
        done = -(-len(part.packed) // self._samples)
        if seconds < _SHORT and done >= self.batches:
            self.batches = min(self._most, 2 * self.batches)
        elif seconds > _LONG and done <= self.batches:
            self.batches = max(1, done // 2)


class Reader:
    """Reads samples in a thread, and makes parts of them as others are finished.

    Args:
        source: The samples that are new.
        samples: Samples per batch.
        size: Batches per part.
        exif: Whether to apply the EXIF orientation of photos.
        workers: Threads that load images.
        put: Called with each part; then with None, or the error of the source.

    Attributes:
        sends: Whether images in files are sent, so that parts are limited by their bytes.
    """

    def __init__(
        self,
        source: Iterable[Sample],
        *,
        samples: int,
        size: PartSize,
        exif: Exif,
        workers: int,
        put: Callable[[Part | BaseException | None], None],
    ) -> None:
        self.sends = False
        self._samples, self._size, self._exif, self._put = samples, size, exif, put
        self._stop = threading.Event()
        self._open = threading.Semaphore(0)
        self._pool = ThreadPoolExecutor(workers, "load")
        self._thread = threading.Thread(
            target=self._read, args=(source,), name="samples", daemon=True
        )
        self._thread.start()

    def allow(self, parts: int = 1) -> None:
        """Lets it make more parts."""
        if parts > 0:
            self._open.release(parts)

    def stop(self) -> None:
        """Ends the threads."""
        self._stop.set()
        self._open.release()
        self._thread.join()
        self._pool.shutdown()

    def _read(self, source: Iterable[Sample]) -> None:
        try:
            samples = iter(source)
            while self._open.acquire() and not self._stop.is_set():
                packed: list[Packed] = []
                try:
                    for batch in self._batches(samples):
                        packed += batch
                finally:  # if the source fails, run what came before
                    if packed:
                        self._put(Part(packed=packed))
                if not packed:
                    break
            self._put(None)
        except BaseException as error:  # raised in the caller's thread
            self._put(error)

    def _batches(self, samples: Iterator[Sample]) -> Iterator[list[Packed]]:
        """Yields the batches of a part."""
        size = 0
        for _ in range(self._size.batches):
            chosen: list[Sample] = []
            packed: list[Packed] = []
            try:
                try:
                    chosen.extend(islice(samples, self._samples))
                finally:  # if the source fails, run what came before
                    packed.extend(self._pool.map(self._pack, chosen))
            except BaseException:
                yield packed
                raise
            yield packed
            size += sum(each.size for each in packed if self.sends or each.sent is not None)
            if len(packed) < self._samples or size >= MOST_SENT or self._stop.is_set():
                return

    def _pack(self, sample: Sample) -> Packed:
        return pack(sample, self._exif)
