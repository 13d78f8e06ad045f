"""Layout of the charts, which the templates draw as inline SVG.

Every chart is 640 units wide and scaled by the page. A table of its numbers goes with each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zoo.client.recommendation import cut

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 640, 76, 200, 16, 40
_LABEL_STEP = 20  # vertical distance of the labels on the right
_LANE = 46  # height of a dot's lane: its name, and the rule with the dot below
_NUMBER = 120  # width reserved for the number at the end of the rule


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A tick of an axis: its position in units, and its text."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart.

    Attributes:
        name: Its label.
        tone: Number of its colour, from 0.
        dashed: Whether it is drawn dashed, as PyTorch's is.
        points: Its points, ``(x, y)`` in units.
        label_y: Vertical position of its label, right of the chart.
    """

    name: str
    tone: int
    dashed: bool
    points: tuple[tuple[float, float], ...]
    label_y: float

    @property
    def path(self) -> str:
        """The points in the syntax of SVG's ``polyline``."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A line chart of speed against batch size."""

    height: int
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Series:
    """The data of a line.

    Attributes:
        name: Its label.
        points: Batch size to images per second.
        dashed: Whether it is drawn dashed, as PyTorch's is.
    """

    name: str
    points: dict[int, float]
    dashed: bool = False


def speed_plot(series: Sequence[Series], height: int = 260) -> Plot | None:
    """Lays out images per second (linear, from 0) against batch size (logarithmic).

    Returns:
        The chart, None if there are no points.
    """
    batches = sorted({batch for line in series for batch in line.points})
    if not batches:
        return None
    fastest = max(value for line in series for value in line.points.values())
    step = nice_step(fastest)
    top = step * math.ceil(fastest / step)
    low, high = math.log2(batches[0]), math.log2(batches[-1])
    wide, tall = WIDTH - LEFT - RIGHT, height - TOP - BOTTOM

    def x(batch: int) -> float:
        return LEFT + wide * ((math.log2(batch) - low) / (high - low) if high > low else 0.5)

    def y(value: float) -> float:
        return TOP + tall * (1 - value / top)

    placed = [
        tuple((x(batch), y(value)) for batch, value in sorted(line.points.items()))
        for line in series
    ]
    ends = [points[-1][1] if points else 0.0 for points in placed]
    labels = spread(ends, TOP, height - BOTTOM)
    return Plot(
        height=height,
        x=tuple(Tick(at=x(batch), text=str(batch)) for batch in batches),
        y=tuple(Tick(at=y(n * step), text=f"{n * step:,g}") for n in range(round(top / step) + 1)),
        lines=tuple(
            Line(name=line.name, tone=tone, dashed=line.dashed, points=points, label_y=label)
            for tone, (line, points, label) in enumerate(zip(series, placed, labels, strict=True))
            if points
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Dot:
    """An engine's accuracy: its lowest cosine, and the lowest that its tolerance allows.

    Attributes:
        name: The engine's label.
        text: The cosine as text.
        at: Horizontal position of the dot, in units.
        floor: Horizontal position of the tolerance, None if that is unknown.
        y: Vertical position of the dot; its label goes above.
    """

    name: str
    text: str
    at: float
    floor: float | None
    y: float


@dataclass(frozen=True, kw_only=True)
class DotPlot:
    """A dot chart of accuracy; farther right is better."""

    height: int
    x: tuple[Tick, ...]
    dots: tuple[Dot, ...]


def accuracy_plot(rows: Sequence[tuple[str, float, float | None]]) -> DotPlot | None:
    """Lays out the engines' lowest cosines by their number of nines, ``-log10(1 - cosine)``.

    Args:
        rows: Label, lowest cosine and tolerated cosine of each engine.
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
    """Returns a cosine's number of nines, at most 8: 0.999 has three."""
    return min(8.0, -math.log10(max(1e-8, 1 - cosine)))


def nice_step(top: float) -> float:
    """Returns 1, 2 or 5 times a power of ten that divides 0 to ``top`` into at most five steps."""
    rough = max(top, 1e-9) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Returns positions close to the wanted ones at which labels do not overlap."""
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
