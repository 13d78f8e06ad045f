"""Runs a pass in this process while others start, and then in those."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from itertools import islice

from zoo.caft.runs import Result, Runs
from zoo.caft.sample import Sample
from zoo.caft.spread import Starting
from zoo.util.errors import ZooError


class HandoverRuns:
    """Runs batches here until processes are ready, and the rest there.

    Batches are the same wherever they run, hence the features too.

    Args:
        here: Runs them here.
        starting: The processes. What prevents them from starting is raised if ``required``, else
            all batches run here.
        samples: Samples per batch.
        required: Whether the processes were asked for.
    """

    def __init__(self, here: Runs, starting: Starting, *, samples: int, required: bool) -> None:
        self._here = here
        self._starting = starting
        self._samples = samples
        self._required = required
        self._there: Runs | None = None
        self._error: ZooError | None = None
        self._thread = threading.Thread(target=self._wait, name="handover", daemon=True)
        self._thread.start()

    @property
    def decoders(self) -> tuple[str, ...]:
        """See :class:`zoo.caft.runs.Runs`."""
        there = () if self._there is None else self._there.decoders
        return tuple(dict.fromkeys((*self._here.decoders, *there)))

    def results(self, samples: Iterable[Sample]) -> Generator[Result, None, None]:
        """Yields the results of batches; see :class:`zoo.caft.runs.Runs`."""
        rest = iter(samples)
        yield from self._here.results(self._until_ready(rest))
        if self._error is not None and self._required:
            raise self._error
        if self._there is not None:
            yield from self._there.results(rest)

    def close(self) -> None:
        """Waits for the thread, once the processes have been ended."""
        self._thread.join()

    def _wait(self) -> None:
        try:
            self._there = self._starting.wait()
        except ZooError as error:
            self._error = error

    def _until_ready(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        """Yields samples, by whole batches, until the processes are ready or have failed."""
        while self._there is None and not (self._required and self._error):
            batch = list(islice(samples, self._samples))
            yield from batch
            if len(batch) < self._samples:
                return
