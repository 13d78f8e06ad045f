"""Draws the ratios of all sections."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench.results import Bench
from zoo.caft.report import new_figure


def draw(bench: Bench, path: Path) -> None:
    """Writes an SVG: a row for each peer and work, with its interval, on a logarithmic axis."""
    import matplotlib

    rows = [
        (f"{section.title}: {ratio.what}\n{ratio.peer}", ratio.ratio)
        for section in bench.sections
        for ratio in section.ratios
    ]
    figure = new_figure(9, 0.45 * max(len(rows), 3) + 0.8)
    axes = figure.subplots()
    for place, (_, ratio) in enumerate(rows):
        colour = "tab:green" if ratio.low > 1 else "tab:red" if ratio.high < 1 else "tab:gray"
        axes.plot([ratio.low, ratio.high], [place, place], color=colour, linewidth=2)
        axes.plot([ratio.value], [place], "o", color=colour)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7)
    axes.set(xscale="log", xlabel="times as fast as the peer; right of 1, ours is faster")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    with matplotlib.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none"}):
        partial = path.with_suffix(".partial")
        figure.savefig(partial, format="svg", metadata={"Date": None})
    partial.replace(path)
