"""The results of ``make bench``: what ``docs/results/bench.json`` holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from zoo.schema.intervals import median_interval


class _Stated(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Taken(_Stated):
    """What one run took.

    Attributes:
        seconds: Wall time.
        mib: Peak of the resident memory of the largest process, MiB; None if it was not measured.
    """

    seconds: float
    mib: float | None = None


class Median(_Stated):
    """A median over rounds.

    Attributes:
        value: The median.
        low: Lower end of the interval that encloses the true median with 95%; of fewer than six
            rounds, which can't state one, the least value.
        high: Upper end, or the greatest value.
        rounds: How many rounds.
    """

    value: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Median:
        """Returns the median of some values."""
        low, high = median_interval(values) or (min(values), max(values))
        return cls(value=float(np.median(values)), low=low, high=high, rounds=len(values))


class Ratio(_Stated):
    """Our time beside a peer's for the same work, in turns.

    Attributes:
        key: What README and docs call it, unique in a section.
        what: The work.
        peer: The peer and its version.
        ratio: The peer's seconds divided by ours, round by round: above 1, ours is faster.
        ours: Ours.
        theirs: The peer's, both the medians of seconds and the largest peak of memory.
    """

    key: str
    what: str
    peer: str
    ratio: Median
    ours: Taken
    theirs: Taken

    @classmethod
    def of(
        cls, key: str, what: str, peer: str, ours: Sequence[Taken], theirs: Sequence[Taken]
    ) -> Ratio:
        """Returns the ratio of runs in turns."""
        ratios = [peers.seconds / own.seconds for own, peers in zip(ours, theirs, strict=True)]
        return cls(
            key=key, what=what, peer=peer, ratio=Median.of(ratios),
            ours=typical(ours), theirs=typical(theirs),
        )  # fmt: skip


class Growth(_Stated):
    """How time and memory grow with the work.

    Attributes:
        key: Unique in a section.
        what: The work.
        unit: What the sizes count.
        sizes: Sizes of the work.
        seconds: Median at each size.
        mib: Peak memory at each size; empty if it was not measured.
        exponent: Of the last tenfold growth, or a little more: 1 is proportional, 0 is constant.
        memory_exponent: The same of memory; None if it was not measured.
    """

    key: str
    what: str
    unit: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    mib: tuple[float, ...] = ()
    exponent: Median
    memory_exponent: float | None = None

    @classmethod
    def of(cls, key: str, what: str, unit: str, runs: Mapping[int, Sequence[Taken]]) -> Growth:
        """Returns the growth over sizes, of runs in turns."""
        sizes = tuple(sorted(runs))
        largest = sizes[-1]
        before = max((size for size in sizes if size * 10 <= largest), default=sizes[0])
        medians = {size: typical(taken) for size, taken in runs.items()}
        exponents = [
            _exponent(before, largest, a.seconds, b.seconds)
            for a, b in zip(runs[before], runs[largest], strict=False)  # large work: fewer rounds
        ]
        mib = tuple(medians[size].mib or 0.0 for size in sizes)
        known = all(mib)
        return cls(
            key=key, what=what, unit=unit, sizes=sizes,
            seconds=tuple(medians[size].seconds for size in sizes),
            mib=mib if known else (), exponent=Median.of(exponents),
            memory_exponent=_exponent(before, largest, mib[sizes.index(before)], mib[-1])
            if known
            else None,
        )  # fmt: skip


def _exponent(size: int, larger: int, before: float, after: float) -> float:
    return float(np.log(after / before) / np.log(larger / size))


def typical(taken: Iterable[Taken]) -> Taken:
    """Returns the median of seconds and the largest peak of memory."""
    runs = list(taken)
    peaks = [run.mib for run in runs if run.mib is not None]
    return Taken(
        seconds=float(np.median([run.seconds for run in runs])),
        mib=max(peaks) if peaks else None,
    )


class Section(_Stated):
    """One section.

    Attributes:
        name: Its name for ``BENCH=``.
        title: Its heading.
        about: What was compared, and how.
        ratios: Beside peers.
        growths: As the work grows.
        skipped: Peers and parts that were not measured, each with the reason.
    """

    name: str
    title: str
    about: str
    ratios: tuple[Ratio, ...] = ()
    growths: tuple[Growth, ...] = ()
    skipped: tuple[str, ...] = ()
    date: str = ""
    quick: bool = False
    load: float | None = None


class Bench(_Stated):
    """All sections.

    Attributes:
        machine: Processor, cores and GPU.
        python: Version of Python.
        sections: The sections, each with the day and the load of other processes.
    """

    machine: str
    python: str
    sections: tuple[Section, ...]

    def figures(self) -> Iterator[tuple[str, Ratio | Growth]]:
        """Yields every figure with its full key: ``engine.onnxruntime``."""
        for section in self.sections:
            figures: list[Ratio | Growth] = [*section.ratios, *section.growths]
            for figure in figures:
                yield f"{section.name}.{figure.key}", figure


def read_bench(path: Path) -> Bench | None:
    """Returns earlier results; None if there are none."""
    return Bench.model_validate_json(path.read_bytes()) if path.exists() else None
