"""Samples that are looked at before they are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator

from zoo.caft.file_read import FileRead
from zoo.caft.sample import Sample


class Lookahead:
    """Yields samples once, in order, and tells something of those to come.

    Args:
        samples: The samples; what is raised for one of them is raised in its turn.
    """

    def __init__(self, samples: Generator[Sample, None, None]) -> None:
        self._samples = samples
        self._seen: deque[Sample] = deque()
        self._error: Exception | None = None

    def files(self, most: int) -> int:
        """Returns how many samples follow that are in files, up to a number.

        Counting ends at the first that is not in a file: it may hold its image in memory.
        """
        count = sum(isinstance(sample.read, FileRead) for sample in self._seen)
        while count < most and count == len(self._seen):
            try:
                self._seen.append(next(self._samples))
            except StopIteration:
                break
            except Exception as error:  # in its turn
                self._error = error
                break
            count += isinstance(self._seen[-1].read, FileRead)
        return count

    def __iter__(self) -> Iterator[Sample]:
        while self._seen:
            yield self._seen.popleft()
        if self._error is not None:
            raise self._error
        yield from self._samples

    def close(self) -> None:
        """Closes the source of the samples."""
        self._seen.clear()
        self._samples.close()
