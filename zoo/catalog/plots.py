"""Plots: where the marks of a chart go. The templates draw them as inline SVG.

Every plot is 640 units wide; the page scales it. Next to each plot stands a table of its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zoo.client.recommendation import cut

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 640, 76, 200, 16, 40
_LABEL_STEP = 20  # units between two labels at the right
_LANE = 46  # units that a dot has: its name, and below it the line that it lies on
_NUMBER = 120  # units for the number at the end of that line


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A mark on an axis, in units, with its text."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A series.

    Attributes:
        name: What it is.
        tone: Number of its colour, from 0.
        dashed: Whether it is PyTorch's.
        points: Its marks, ``(x, y)`` in units.
        label_y: Where its name stands, right of the plot.
    """

    name: str
    tone: int
    dashed: bool
    points: tuple[tuple[float, float], ...]
    label_y: float

    @property
    def path(self) -> str:
        """The points, as SVG's polyline takes them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A chart of lines: speed against batch."""

    height: int
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Series:
    """What a line is made of.

    Attributes:
        name: What it is.
        points: Batch size to images per second.
        dashed: Whether it is PyTorch's.
    """

    name: str
    points: dict[int, float]
    dashed: bool = False


def speed_plot(series: Sequence[Series], height: int = 260) -> Plot | None:
    """Places images per second (linear, from 0) over batch sizes (logarithmic).

    Returns:
        The plot; None where there is nothing to draw.
    """
    batches = sorted({batch for one in series for batch in one.points})
    if not batches:
        return None
    step = nice_step(max(value for one in series for value in one.points.values()))
    top = step * math.ceil(max(v for one in series for v in one.points.values()) / step)
    low, high = math.log2(batches[0]), math.log2(batches[-1])
    wide, tall = WIDTH - LEFT - RIGHT, height - TOP - BOTTOM

    def x(batch: int) -> float:
        return LEFT + wide * ((math.log2(batch) - low) / (high - low) if high > low else 0.5)

    def y(value: float) -> float:
        return TOP + tall * (1 - value / top)

    placed = [
        tuple((x(batch), y(value)) for batch, value in sorted(one.points.items())) for one in series
    ]
    ends = [points[-1][1] if points else 0.0 for points in placed]
    labels = spread(ends, TOP, height - BOTTOM)
    return Plot(
        height=height,
        x=tuple(Tick(at=x(batch), text=str(batch)) for batch in batches),
        y=tuple(Tick(at=y(n * step), text=f"{n * step:,g}") for n in range(round(top / step) + 1)),
        lines=tuple(
            Line(name=one.name, tone=tone, dashed=one.dashed, points=points, label_y=label)
            for tone, (one, points, label) in enumerate(zip(series, placed, labels, strict=True))
            if points
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Dot:
    """An engine's accuracy: its worst cosine, and the least that it may be.

    Attributes:
        name: Which engine.
        text: The number, in words.
        at: Where the dot is, in units.
        floor: Where the floor is, None where it is not known.
        y: Middle of the line that it lies on; its name stands above that.
    """

    name: str
    text: str
    at: float
    floor: float | None
    y: float


@dataclass(frozen=True, kw_only=True)
class DotPlot:
    """A chart of dots: accuracy by precision, the better the farther right."""

    height: int
    x: tuple[Tick, ...]
    dots: tuple[Dot, ...]


def accuracy_plot(rows: Sequence[tuple[str, float, float | None]]) -> DotPlot | None:
    """Places worst cosines by how many nines they have: ``-log10(1 - cosine)``.

    Args:
        rows: Name, worst cosine and floor of each engine.
    """
    if not rows:
        return None
    last = max(4, *(math.ceil(nines(value)) for _, value, _ in rows))
    wide = WIDTH - LEFT - _NUMBER

    def x(value: float) -> float:
        return LEFT + wide * min(1.0, max(0.0, (nines(value) - 1) / (last - 1)))

    names = {1: "0.9", 2: "0.99", 3: "0.999", 4: "0.9999"}
    return DotPlot(
        height=_LANE * len(rows) + BOTTOM,
        x=tuple(
            Tick(at=LEFT + wide * (n - 1) / (last - 1), text=names.get(n, f"{n} nines"))
            for n in range(1, last + 1)
        ),
        dots=tuple(
            Dot(
                name=name,
                text=cut(value, 7),
                at=x(value),
                floor=None if floor is None else x(floor),
                y=_LANE * (number + 1) - 16.0,
            )
            for number, (name, value, floor) in enumerate(rows)
        ),
    )


def nines(cosine: float) -> float:
    """Returns how many nines a cosine has, at most 8: 0.999 has three."""
    return min(8.0, -math.log10(max(1e-8, 1 - cosine)))


def nice_step(top: float) -> float:
    """Returns 1, 2 or 5 times a power of ten that divides 0 to ``top`` in five steps at most."""
    rough = max(top, 1e-9) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Returns places as near to the wanted ones as goes without one label on another."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [0.0] * len(wanted)
    last = top - _LABEL_STEP
    for index in order:
        last = placed[index] = max(wanted[index], last + _LABEL_STEP)
    limit = bottom
    for index in reversed(order):
        limit = placed[index] = min(placed[index], limit)
        limit -= _LABEL_STEP
    return placed
