"""Runs a pass's samples through the engine, in this process or in several others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from zoo.caft.decode import Decoded
from zoo.caft.feed import Feed
from zoo.caft.sample import Sample
from zoo.runtime.base import Running
from zoo.util.errors import DatasetError


class Result(NamedTuple):
    """A batch that was run.

    Attributes:
        outcomes: One per sample.
        features: ``(samples * views, feature_dim)``, float32 or the cache's data type.
        sums: :func:`zoo.caft.files.sums_of` them, if another process has computed them.
    """

    outcomes: tuple[Decoded, ...]
    features: npt.NDArray[Any]
    sums: npt.NDArray[np.uint32] | None = None


Waiting = Callable[[], AbstractContextManager[None]]
"""Opens a context around each wait for an engine, which a pass times."""


class Runs(Protocol):
    """Runs the samples of a pass."""

    @property
    def decoders(self) -> tuple[str, ...]:
        """Names and versions of what decodes the photos."""
        ...

    def results(self, samples: Iterable[Sample]) -> Generator[Result, None, None]:
        """Yields the results of batches, in the order of the samples.

        Raises:
            DatasetError: Reading the data set failed. All results before that have been yielded.
            RunError: The engine failed.
        """
        ...


Room = Callable[[int], "npt.NDArray[Any] | None"]
"""Returns where the features of a number of samples go; None for memory of their own."""


class FeedRuns:
    """Runs samples through the engine of this process.

    Args:
        feed: Prepares the engine's batches.
        waiting: Opened around each wait for the engine.
        room: Asked for each batch, just before its features are fetched. What is too large for the
            data type becomes infinity.
    """

    def __init__(
        self, feed: Feed, waiting: Waiting = nullcontext, room: Room = lambda samples: None
    ) -> None:
        self._feed = feed
        self._waiting = waiting
        self._room = room

    @property
    def decoders(self) -> tuple[str, ...]:
        """See :class:`Runs`."""
        return self._feed.decoders

    def results(self, samples: Iterable[Sample]) -> Generator[Result, None, None]:
        """Yields each batch's result while the engine runs the next batch; see :class:`Runs`."""
        running: deque[tuple[tuple[Decoded, ...], Running]] = deque()

        def take() -> Result:
            outcomes, run = running.popleft()
            with self._waiting(), np.errstate(over="ignore"):
                return Result(outcomes, run.features(into=self._room(len(outcomes))))

        with closing(self._feed.batches(samples)) as batches:
            try:
                for batch in batches:
                    with self._waiting():
                        running.append((batch.outcomes, self._feed.begin(batch.images)))
                    if len(running) > self._feed.ahead:
                        yield take()
            except DatasetError:
                while running:
                    yield take()
                raise
            while running:
                yield take()
