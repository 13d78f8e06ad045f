"""Runs the samples of a pass on the workers of a cluster, and yields their results in order."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Generator, Iterable
from contextlib import suppress
from typing import Any

from zoo.caft.answers import Broken, Differs, Faulty, NotFinite, checked
from zoo.caft.augment import Augmentation
from zoo.caft.crew import AHEAD, Crew
from zoo.caft.decode import cores
from zoo.caft.dispatch import Dispatcher
from zoo.caft.feed import DecodeMode
from zoo.caft.parts import Part, PartSize, Reader
from zoo.caft.runs import Result, Waiting
from zoo.caft.sample import Sample
from zoo.caft.sending import Attempt, send_again
from zoo.caft.wire import Setup
from zoo.caft.worker_kinds import Worker
from zoo.caft.workers import Workforce
from zoo.inference.extractor import Extractor
from zoo.inference.preprocess import Exif
from zoo.util.causes import cause_of
from zoo.util.errors import UsageError

_GATHER = (3.0, 60.0)  # seconds to fetch an answer, before and after asking if it still exists


class ClusterRuns:
    """Runs batches on workers; see :class:`zoo.caft.runs.Runs`.

    All workers have the same batches as a single process would have, so features are the same.

    Args:
        workforce: The workers, which have an engine.
        setup: What all parts have in common.
        width: Features of an image.
        waiting: Opened around each wait for a worker.
    """

    def __init__(self, workforce: Workforce, setup: Setup, *, width: int, waiting: Waiting) -> None:
        workforce.begin_pass()
        self._workforce, self._setup = workforce, setup
        self._width = width
        self._waiting = waiting
        self._decoders: tuple[str, ...] = ()

    @property
    def decoders(self) -> tuple[str, ...]:
        """See :class:`zoo.caft.runs.Runs`; empty until the first result."""
        return self._decoders

    def results(self, samples: Iterable[Sample]) -> Generator[Result, None, None]:
        """Yields the results of parts; see :class:`zoo.caft.runs.Runs`.

        Raises:
            ClusterError: The scheduler was lost, or there is no worker any more.
            RunError: Several workers died of a part.
        """
        running = _Running(self._workforce, self._setup, self._width, samples)
        try:
            while (part := running.next(self._waiting)) is not None:
                if part.failure is not None:
                    raise part.failure
                assert part.result is not None
                self._decoders = running.decoders
                yield part.result
        finally:
            running.stop()


def check_chosen(workforce: Workforce, extractor: Extractor) -> None:
    """Checks that workers run the engine that a pass is for.

    Raises:
        UsageError: They run none yet, or another.
    """
    engine = workforce.engine
    if engine is None or engine.record.engine != extractor.record.engine:
        raise UsageError(
            "the workers of the cluster run a different engine",
            hint="pass the extractor that Workforce.choose returned last",
        )


def setup_of(
    workforce: Workforce,
    augmentation: Augmentation,
    *,
    samples: int,
    workers: int | None,
    decode: DecodeMode,
    exif: Exif,
) -> Setup:
    """Returns what all parts of a pass have in common.

    Args:
        workforce: The workers, which have an engine.
        augmentation: The views of each image.
        samples: Samples per batch.
        workers: Decoding threads of a machine; by default one per core.
        decode: How photos are decoded.
        exif: Whether to apply the EXIF orientation of photos.
    """
    engine = workforce.engine
    assert engine is not None
    return Setup(
        store=engine.store,
        anonymous=engine.anonymous,
        record=engine.record.model_dump_json(),
        augmentation=augmentation,
        samples=samples,
        decode=decode,
        exif=exif,
        workers=workers,
    )


def _fetched(future: Any) -> Any:
    """Returns the answer of a future that has ended.

    Raises:
        TimeoutError: The worker died before it had sent the answer.
    """
    try:
        return future.result(timeout=_GATHER[0])
    except (TimeoutError, asyncio.TimeoutError):
        if future.status != "finished":
            raise
        return future.result(timeout=_GATHER[1])


class _Running:
    """A pass on workers: reads the samples, takes answers, and repeats what was lost."""

    def __init__(
        self, workforce: Workforce, setup: Setup, width: int, samples: Iterable[Sample]
    ) -> None:
        self._workforce, self._setup, self._width = workforce, setup, width
        self.decoders: tuple[str, ...] = ()
        self._views = setup.augmentation.views
        self._size = PartSize(setup.samples, 4 * self._views * width)
        self._events: queue.SimpleQueue[Attempt | Part | BaseException | None]
        self._events = queue.SimpleQueue()
        self._ended = False
        self._error: BaseException | None = None
        self._allowed = 0
        self._crew = Crew(workforce)
        self._dispatcher = Dispatcher(workforce, setup, self._crew, self._events.put)
        self._window = self._dispatcher.window
        self._reader = Reader(
            samples,
            samples=setup.samples,
            size=self._size,
            exif=setup.exif,
            workers=setup.workers or cores(),
            put=self._events.put,
        )
        self._allow()

    def next(self, waiting: Waiting) -> Part | None:
        """Returns the next part in order that has ended, None if there are no more.

        Raises:
            ClusterError: See :meth:`ClusterRuns.results`.
            DatasetError: Reading the data set failed; all parts before that have been returned.
        """
        while True:
            if self._window and self._window[0].ended:
                part = self._window.pop(0)
                self._reader.allow(int(part.counted))
                return part
            if self._ended and not self._window:
                if self._error is not None:
                    raise self._error
                return None
            self._dispatcher.assign()
            with waiting():
                self._handle_events()
            for worker in self._crew.look():
                self._lose(worker)
            self._allow()

    def stop(self) -> None:
        """Ends the threads and cancels what runs."""
        self._reader.stop()
        self._crew.dismiss()
        self._dispatcher.stop()

    # Events

    def _handle_events(self) -> None:
        with suppress(queue.Empty):
            event = self._events.get(timeout=1)
            while True:
                self._handle(event)
                event = self._events.get_nowait()

    def _handle(self, event: Attempt | Part | BaseException | None) -> None:
        match event:
            case Part():
                self._window.append(event)
            case Attempt():
                if not event.dropped:
                    self._end(event)
            case _:
                self._ended, self._error = True, event

    def _end(self, attempt: Attempt) -> None:
        """Takes the answer of a worker, or the reason why there is none."""
        part, worker = attempt.part, attempt.worker
        if attempt.error is not None:  # a fault of this machine while it read an image
            self._return(attempt)
            part.failure = attempt.error
            return
        from distributed import CancelledError, KilledWorker

        assert attempt.future is not None
        try:
            data = _fetched(attempt.future)
        except CancelledError as error:
            raise self._workforce.lost() from error
        except (KilledWorker, TimeoutError, asyncio.TimeoutError):  # two classes in Python 3.10
            self._lose(worker)
            return
        except Exception as error:  # of any class: the worker's own
            self._crew.leave_out(worker, f"it can't run parts: {cause_of(error)}", None)
            return
        self._return(attempt)
        if not part.ended:
            self._take(attempt, data)
        with suppress(Exception):
            attempt.future.release()

    def _take(self, attempt: Attempt, data: bytes) -> None:
        part, worker = attempt.part, attempt.worker
        try:
            decoders, result = checked(data, attempt, self._views, self._width)
        except Differs as differs:
            self._reader.sends |= differs.all_of_them
            send_again(attempt, differs.places, self._workforce, all_of_them=differs.all_of_them)
        except NotFinite as error:
            if part.not_finite is None and len(self._crew.usable) > 1:
                part.not_finite = worker.name  # ask another
                return
            part.result = error.result  # the writer refuses it, and names the image
        except Broken as error:
            self._crew.leave_out(worker, f"its answer is not valid: {error}", None)
        except Faulty as error:
            if error.died:
                self._count_death(part, worker)
            else:
                self._crew.leave_out(worker, error.reason, error.hint)
        else:
            self.decoders = self.decoders or decoders
            if decoders != self.decoders:
                words = f"it decodes with {', '.join(decoders)}, others {', '.join(self.decoders)}"
                self._crew.leave_out(worker, words, None)
                return
            worker.shares_files = worker.shares_files or attempt.spot is not None
            seconds = time.monotonic() - attempt.begun
            self._dispatcher.note_duration(seconds)
            self._size.learn(part, seconds)
            part.result = result

    def _return(self, attempt: Attempt) -> None:
        """Ends an attempt whatever came of it."""
        worker = attempt.worker
        attempt.part.running.remove(attempt)
        worker.running.remove(attempt)
        if worker.running:
            worker.running[0].begun = time.monotonic()

    def _lose(self, worker: Worker) -> None:
        """Takes back the parts of a worker that died. The one that it was running is blamed."""
        running = self._crew.lose(worker)
        blamed = next((attempt for attempt in running if not attempt.answered), None)
        if blamed is not None and not blamed.part.ended:
            self._count_death(blamed.part, worker)

    def _count_death(self, part: Part, worker: Worker) -> None:
        """Counts a death by a part; narrows it down to a batch."""
        part.count_death(worker.name)
        if not part.ended and not part.running:
            self._dispatcher.replace(part, part.split(self._setup.samples))

    def _allow(self) -> None:
        """Lets the reader go ahead as far as the workers need."""
        wanted = AHEAD * len(self._crew.usable) + 2
        self._reader.allow(wanted - self._allowed)
        self._allowed = max(self._allowed, wanted)
