"""Writes results as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench.results import Bench, Growth, Median, Ratio, Section

_ABOUT = """# This project beside its peers

Written by `make bench`, with `bench.json` and [bench.svg](bench.svg). Every number
compares two ways of doing the same work within one run, in turns: **times as fast** is the peer's
time divided by ours, so that above 1 ours is faster. In brackets is the 95% interval of the median
over rounds; of fewer than six rounds, which can't state one, the range. Seconds and MiB are those
of one machine.

![Times as fast as each peer, with intervals](bench.svg)
"""


def to_markdown(bench: Bench) -> str:
    """Returns the page."""
    return "\n".join([_ABOUT, f"{bench.machine}; Python {bench.python}.", *_sections(bench), ""])


def _sections(bench: Bench) -> Iterator[str]:
    for section in bench.sections:
        yield f"\n## {section.title}\n"
        yield f"{section.about}\n"
        yield f"{_when(section)}\n"
        if section.ratios:
            yield "| work | peer | times as fast | seconds, ours | peer's | MiB, ours | peer's |"
            yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
            yield from map(_ratio, section.ratios)
        if section.ratios and section.growths:
            yield ""
        if section.growths:
            yield "| work | sizes | seconds | exponent of time | MiB | of memory |"
            yield "| --- | --- | --- | ---: | --- | ---: |"
            yield from map(_growth, section.growths)
        if section.skipped:
            yield f"\nNot measured: {'; '.join(section.skipped)}."


def _when(section: Section) -> str:
    """Returns the day, and what else the machine did."""
    load = "not known" if section.load is None else f"{section.load:.0%}"
    quick = ", quick: few rounds and small sizes" if section.quick else ""
    return f"{section.date}{quick}; share of the cores that other processes used meanwhile: {load}."


def stated(median: Median, digits: int = 2) -> str:
    """Returns a median with its interval."""
    return f"{median.value:,.{digits}f} ({median.low:,.{digits}f} to {median.high:,.{digits}f})"


def seconds(value: float) -> str:
    """Returns a time with three digits."""
    return f"{value:,.3f}" if value < 100 else f"{value:,.0f}"


def _ratio(row: Ratio) -> str:
    digits = 2 if 0.1 < row.ratio.value < 100 else 4 if row.ratio.value < 1 else 0
    ours, theirs = row.ours, row.theirs
    return (
        f"| {row.what} | {row.peer} | {stated(row.ratio, digits)} | {seconds(ours.seconds)} | "
        f"{seconds(theirs.seconds)} | {_mib(ours.mib)} | {_mib(theirs.mib)} |"
    )


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _growth(row: Growth) -> str:
    memory = "" if row.memory_exponent is None else f"{row.memory_exponent:.2f}"
    sizes = ", ".join(f"{size:,}" for size in row.sizes)
    return (
        f"| {row.what} | {sizes} {row.unit} | {', '.join(map(seconds, row.seconds))} | "
        f"{stated(row.exponent)} | {', '.join(map(_mib, row.mib))} | {memory} |"
    )
