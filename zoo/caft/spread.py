"""Spreads the batches of a pass over several processes, each with an engine of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any

from zoo.caft.engine_process import EngineProcess, Task, outcome_of
from zoo.caft.runs import Result, Waiting
from zoo.caft.sample import Sample
from zoo.inference.gpu import turns
from zoo.util.errors import RunError

_AHEAD = 4
"""Batches of a process whose results have not been read: in its engine, decoded, being decoded and
on the way."""


class SpreadRuns:
    """Runs batches in several processes, in turns, and yields their results in order.

    All processes have the same batches as a single one would have, so features are the same.

    Args:
        processes: The processes, ready.
        decoders: See :class:`zoo.caft.runs.Runs`.
        samples: Samples per batch.
        waiting: Opened around each wait for a process.
    """

    def __init__(
        self,
        processes: Sequence[EngineProcess],
        decoders: tuple[str, ...],
        *,
        samples: int,
        waiting: Waiting = nullcontext,
    ) -> None:
        self._processes = processes
        self._decoders = decoders
        self._samples = samples
        self._waiting = waiting

    @property
    def decoders(self) -> tuple[str, ...]:
        """See :class:`zoo.caft.runs.Runs`."""
        return self._decoders

    def results(self, samples: Iterable[Sample]) -> Generator[Result, None, None]:
        """Yields the results of batches; see :class:`zoo.caft.runs.Runs`."""
        turns = _Turns(self._processes, samples, self._samples)
        try:
            yield from turns.results(self._waiting)
        finally:
            turns.stop()


class _Turns:
    """Hands batches out to processes in turns: a thread reads samples, one per process sends."""

    def __init__(
        self, processes: Sequence[EngineProcess], samples: Iterable[Sample], size: int
    ) -> None:
        self._processes = processes
        self._size = size
        self._stop = threading.Event()
        self._started: queue.SimpleQueue[Any] = queue.SimpleQueue()
        """Each batch's process and samples in order, then None or the error of the source."""
        self._open = threading.Semaphore(_AHEAD * len(processes))
        self._to_send: list[queue.SimpleQueue[list[Sample] | None]] = [
            queue.SimpleQueue() for _ in processes
        ]
        self._failed: list[BaseException | None] = [None] * len(processes)
        self._threads = [
            threading.Thread(target=self._read, args=(samples,), name="samples", daemon=True),
            *(
                threading.Thread(target=self._send, args=(number,), name="send", daemon=True)
                for number in range(len(processes))
            ),
        ]
        for thread in self._threads:
            thread.start()

    def results(self, waiting: Waiting) -> Generator[Result, None, None]:
        """Yields the results in order."""
        while (item := self._started.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            number, samples = item
            try:
                with waiting():
                    outcomes, features, sums = self._processes[number].receive()
            except RunError:
                if (failed := self._failed[number]) is not None:
                    raise failed from None  # why it got nothing
                raise
            decoded = [
                outcome_of(sample, outcome)
                for sample, outcome in zip(samples, outcomes, strict=True)
            ]
            yield Result(tuple(decoded), features, sums)
            self._open.release()

    def stop(self) -> None:
        """Ends the threads, and the processes if they have not finished."""
        self._stop.set()
        self._open.release()
        for queued in self._to_send:
            queued.put(None)
        for process in self._processes:
            process.stop()
        for thread in self._threads:
            thread.join()

    def _read(self, source: Iterable[Sample]) -> None:
        try:
            samples = iter(source)
            turn = 0
            while not self._stop.is_set():
                self._open.acquire()
                batch: list[Sample] = []
                try:
                    batch.extend(islice(samples, self._size))
                finally:  # if the source fails, run what came before
                    if batch and not self._stop.is_set():
                        number = turn % len(self._processes)
                        self._started.put((number, batch))
                        self._to_send[number].put(batch)
                if not batch:
                    break
                turn += 1
            self._end_sending()
            self._started.put(None)
        except BaseException as error:  # results() raises it in the caller's thread
            self._end_sending()
            self._started.put(error)

    def _end_sending(self) -> None:
        for queued in self._to_send:
            queued.put(None)

    def _send(self, number: int) -> None:
        process, queued = self._processes[number], self._to_send[number]
        try:
            while (batch := queued.get()) is not None:
                process.send(batch)
            process.finish()
        except BaseException as error:  # results() raises it in the caller's thread
            self._failed[number] = error
            process.stop()


class Starting:
    """Processes that start, in the background until :meth:`wait`.

    Args:
        task: What each does.
        environments: Environment variables of each process, by its name for messages.
        waiting: Opened around each wait for a process.

    Raises:
        RunError: A process does not start.
    """

    def __init__(
        self,
        task: Task,
        environments: Mapping[str, Mapping[str, str]],
        *,
        waiting: Waiting = nullcontext,
    ) -> None:
        self._samples = task.samples
        self._waiting = waiting
        self._processes: list[EngineProcess] = []
        with ExitStack() as undo, ExitStack() as files:
            undo.callback(self.close)
            shared: dict[str, int | None] = {}
            for name, environment in environments.items():
                gpu = environment.get("CUDA_VISIBLE_DEVICES", name)
                if gpu not in shared:
                    shared[gpu] = files.enter_context(turns.new())
                own = replace(task, turns=shared[gpu])
                self._processes.append(EngineProcess(own, name, environment))
            undo.pop_all()

    def wait(self) -> SpreadRuns:
        """Waits until all are ready.

        Raises:
            RunError: A process ended, or can't load the engine.
        """
        decoders = [process.ready() for process in self._processes]  # they load at the same time
        names = tuple(dict.fromkeys(name for each in decoders for name in each))
        return SpreadRuns(self._processes, names, samples=self._samples, waiting=self._waiting)

    def stop(self) -> None:
        """Ends the processes, also while another thread waits for them."""
        for process in self._processes:
            process.stop()

    def close(self) -> None:
        """Ends the processes, which no thread uses any more."""
        for process in self._processes:
            process.close()
