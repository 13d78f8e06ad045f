"""The figures in README and docs: each is marked with the result that it comes from.

``<!-- bench KEY FORM -->…<!-- /bench -->`` is written from ``docs/results/bench.json``;
``<!-- from FILE -->…<!-- /from -->`` is written by hand, and every number in it stands in that file
of ``docs/results``. Other numbers with a unit of measurement are settings, which tests list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks.bench.markdown import seconds
from benchmarks.bench.results import Bench, Growth, Ratio, Section

TABLE = (
    "engine.onnxruntime", "engine.openvino", "engine.eager", "engine.compiled", "build.polygraphy",
    "plan.snakemake.1000", "plan.make.1000", "pull.aws", "pull.huggingface_hub", "pass.plain",
    "pass.strong", "epoch.end_to_end",
)  # fmt: skip
"""The rows of README's table."""

_BENCH = re.compile(r"(<!-- bench ([\w.-]+)(?: (\w+))? -->)(.*?)(<!-- /bench -->)", re.DOTALL)
_FROM = re.compile(r"<!-- from ([\w./-]+) -->(.*?)<!-- /from -->", re.DOTALL)
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_UNITS = "ms|s|min|h|seconds?|minutes?|hours?|µs|[KMG]i?B|[kmg]B|images/s|images a second|times as"
_MEASURED = re.compile(rf"(?<![\w.,-])\d[\d,]*(?:\.\d+)?(?: ?%| (?:{_UNITS})(?!\w))")
_CODE = re.compile(r"^(```|~~~).*?^\1[ \t]*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def rewritten(text: str, bench: Bench) -> str:
    """Returns a page with its figures from the results.

    Raises:
        KeyError: A figure is not in the results.
    """

    def replace(match: re.Match[str]) -> str:
        start, key, form, _, end = match.groups()
        return start + figure(bench, key, form or "ratio") + end

    return _BENCH.sub(replace, text)


def figure(bench: Bench, key: str, form: str) -> str:
    """Returns a figure as text.

    Args:
        bench: The results.
        key: ``SECTION.KEY``, or ``table`` for README's table.
        form: ``ratio``, ``interval``, ``ours`` or ``theirs`` (seconds), or ``exponent``.

    Raises:
        KeyError: It is not in the results.
    """
    if key == "table":
        return "\n" + "\n".join(_table(bench)) + "\n"
    found = dict(bench.figures())[key]
    match found, form:
        case Ratio(ratio=ratio), "ratio":
            return _times(ratio.value)
        case Ratio(ratio=ratio), "interval":
            return f"{_times(ratio.low)} to {_times(ratio.high)}"
        case Ratio(ours=taken), "ours":
            return seconds(taken.seconds)
        case Ratio(theirs=taken), "theirs":
            return seconds(taken.seconds)
        case Growth(exponent=exponent), "exponent":
            return f"{exponent.value:.2f}"
    raise KeyError(f"{key} has no {form}")


def _times(value: float) -> str:
    """Returns a ratio with two digits or more, and thousands without any after the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.2f}"


def _table(bench: Bench) -> Iterator[str]:
    rows = [
        (section, ratio)
        for section in bench.sections
        for ratio in section.ratios
        if f"{section.name}.{ratio.key}" in TABLE
    ]
    yield "| work | peer | times as fast (interval) |"
    yield "| --- | --- | ---: |"
    yield from (_row(section, ratio) for section, ratio in rows)


def _row(section: Section, row: Ratio) -> str:
    value, low, high = (_times(one) for one in (row.ratio.value, row.ratio.low, row.ratio.high))
    return f"| {section.title}: {row.what} | {row.peer} | {value} ({low} to {high}) |"


def quoted(text: str) -> Iterator[tuple[str, str]]:
    """Yields the numbers of a page that are marked as from a file of results, with the file."""
    for file, part in _FROM.findall(text):
        for number in _NUMBER.findall(part):
            yield file, number


def numbers_of(text: str) -> set[str]:
    """Returns the numbers in a text."""
    return set(_NUMBER.findall(text))


def unmarked(text: str, settings: tuple[str, ...] = ()) -> list[str]:
    """Returns the numbers with a unit of measurement that a page does not mark.

    Args:
        text: The page, in Markdown; code is left out.
        settings: Words of the page that state settings and limits, which nobody measured.
    """
    for pattern in (_CODE, _BENCH, _FROM):
        text = pattern.sub("", text)
    for words in settings:
        text = text.replace(words, "")
    return _MEASURED.findall(text)
