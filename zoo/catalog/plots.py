"""Layout of the charts, which the templates draw as inline SVG.

Every chart is 640 units wide and scaled by the page. A table of its numbers goes with each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zoo.client.recommendation import cut
from zoo.schema.targets import PRECISIONS

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 640, 76, 200, 16, 40
_LEAST_HEIGHT = 280
_LABEL_STEP = 20  # vertical distance of the labels on the right
_LANE = 34  # height of a lane of dots
_MARGIN = 40  # width right of the last tick, for its text


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
        tone: Number of its colour, from 0; None for that of its place.
    """

    name: str
    points: dict[int, float]
    dashed: bool = False
    tone: int | None = None


def speed_plot(series: Sequence[Series]) -> Plot | None:
    """Lays out images per second (linear, from 0) against batch size (logarithmic).

    The chart is as high as its labels need.

    Returns:
        The chart, None if there are no points.
    """
    batches = sorted({batch for line in series for batch in line.points})
    if not batches:
        return None
    height = max(_LEAST_HEIGHT, TOP + BOTTOM + _LABEL_STEP * len(series))
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
            Line(
                name=line.name,
                tone=place if line.tone is None else line.tone,
                dashed=line.dashed,
                points=points,
                label_y=label,
            )
            for place, (line, points, label) in enumerate(zip(series, placed, labels, strict=True))
            if points
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An engine's accuracy: its lowest cosine, and the lowest that its tolerance allows."""

    precision: str
    cosine: float
    floor: float | None


@dataclass(frozen=True, kw_only=True)
class Dot:
    """An engine in the accuracy chart.

    Attributes:
        tone: Number of its precision's colour, from 0.
        text: Precision and cosine.
        at: Horizontal position of the dot, in units.
        floor: Horizontal position of the tolerance, None if that is unknown.
    """

    tone: int
    text: str
    at: float
    floor: float | None


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A row of the accuracy chart: the engines of an architecture."""

    name: str
    y: float
    dots: tuple[Dot, ...]


@dataclass(frozen=True, kw_only=True)
class DotPlot:
    """A dot chart of accuracy; farther right is better.

    Attributes:
        height: Its height in units.
        x: Ticks of the axis.
        lanes: Its rows.
        precisions: The precisions, each with the number of its colour.
    """

    height: int
    x: tuple[Tick, ...]
    lanes: tuple[Lane, ...]
    precisions: tuple[tuple[str, int], ...]


def accuracy_plot(rows: Sequence[tuple[str, Sequence[Measured]]]) -> DotPlot | None:
    """Lays out the engines' lowest cosines by their number of nines, ``-log10(1 - cosine)``.

    Args:
        rows: The engines of each architecture, by its name.
    """
    every = [measured for _, engines in rows for measured in engines]
    if not every:
        return None
    last = max(4, *(math.ceil(nines(measured.cosine)) for measured in every))
    wide = WIDTH - LEFT - _MARGIN
    given = {measured.precision for measured in every}
    precisions = [*(name for name in PRECISIONS if name in given), *sorted(given - {*PRECISIONS})]

    def x(value: float) -> float:
        return LEFT + wide * min(1.0, max(0.0, (nines(value) - 1) / (last - 1)))

    def dot(measured: Measured) -> Dot:
        return Dot(
            tone=tone_of(measured.precision),
            text=f"{measured.precision} {cut(measured.cosine, 6)}",
            at=x(measured.cosine),
            floor=None if measured.floor is None else x(measured.floor),
        )

    names = {1: "0.9", 2: "0.99", 3: "0.999", 4: "0.9999", 5: "0.99999"}
    return DotPlot(
        height=_LANE * len(rows) + BOTTOM + TOP,
        x=tuple(
            Tick(at=LEFT + wide * (n - 1) / (last - 1), text=names.get(n, f"{n} nines"))
            for n in range(1, last + 1)
        ),
        lanes=tuple(
            Lane(
                name=name,
                y=TOP + _LANE * (number + 0.5),
                dots=tuple(dict.fromkeys(map(dot, engines))),
            )
            for number, (name, engines) in enumerate(rows)
        ),
        precisions=tuple((name, tone_of(name)) for name in precisions),
    )


def tone_of(precision: str) -> int:
    """Returns the number of a precision's colour, the same in every chart."""
    return PRECISIONS.index(precision) if precision in PRECISIONS else len(PRECISIONS)


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
