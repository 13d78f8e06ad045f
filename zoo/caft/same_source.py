"""Decides whether a data set is the one that a cache was made from.

A path, or a name on the hub with its split, identifies a data set: there, everything may change.
Objects have no place, and ``--moved`` says that a place has changed; there, the images decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from zoo.caft.recognise import Recogniser
from zoo.caft.sample import Sample, Source
from zoo.util.errors import CacheError
from zoo.util.names import counted

_PROBES = 64


@dataclass(frozen=True, kw_only=True)
class SameSource:
    """Compares a data set with the one that a cache was made from.

    Args:
        recogniser: What the cache has.
        source: The data set.
        name: Its name.
        had: Name of the cache's data set.
        moved: Whether the user says that it is the same data set.
    """

    recogniser: Recogniser
    source: Source
    name: str
    had: str
    moved: bool

    def check(self) -> None:
        """Checks that the data set still has half of the cache's images.

        If the user says that it is the same data set, half of the images of the smaller one
        suffice, so it may have lost most of them.

        Raises:
            CacheError: It has fewer.
        """
        if not self.recogniser.rows.distinct or (not self.moved and self._mostly_in_place()):
            return
        images = set(self.recogniser.digests(self.source))
        shared = sum(self.recogniser.rows.find(digest) is not None for digest in images)
        had = self.recogniser.rows.distinct
        least = min(had, len(images)) if self.moved else had
        if shared and 2 * shared >= least:
            return
        is_part = shared and 2 * shared >= min(had, len(images))
        raise CacheError(
            f"{self.recogniser.folder} has features of {self.had}; {self.name} is a different "
            f"data set: it has {shared:,} of {counted(had, 'image')} in the cache",
            hint="use another folder"
            + ("; or moved=True, if most images were removed from the data set" if is_part else ""),
        )

    def _mostly_in_place(self) -> bool:
        """Whether most of a few images spread over the cache are where they were.

        An object names its images by number, so this reads only a few items.
        """
        placed = self.recogniser.placed(_PROBES)
        samples = _at(self.source, [place for place, _ in placed])
        same = 0
        for (_, digest), sample in zip(placed, samples, strict=False):
            same += digest in self.recogniser.digests([sample])
        return 2 * same >= len(placed)


def _at(source: Source, places: Sequence[int]) -> Iterator[Sample]:
    """Yields the samples at some places, in increasing order, up to the end of a data set."""
    get = getattr(source, "sample_at", None)
    try:
        length = len(source)  # type: ignore[arg-type]
    except TypeError:
        get = None
    if get is None:
        wanted = set(places)
        samples = islice(source, max(places, default=-1) + 1)
        yield from (sample for place, sample in enumerate(samples) if place in wanted)
        return
    yield from (get(place) for place in places if place < length)
