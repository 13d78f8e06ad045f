"""A model's page: what it is good for, how it is fed, its engines as a grid, its plots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from zoo.catalog import facts
from zoo.catalog.gpus import arch_name, products_of
from zoo.catalog.plots import DotPlot, Plot, Series, accuracy_plot, speed_plot
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.targets import PRECISIONS, arch_of
from zoo.schema.targets_table import target_table

CLASSES = 10
"""Of the head whose size the page gives as an example."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a model has for an architecture and a precision: engines, or reasons why none."""

    engines: tuple[EngineEntry, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GridRow:
    """An architecture of the grid."""

    arch: str
    name: str
    products: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Architectures by precisions."""

    precisions: tuple[str, ...]
    rows: tuple[GridRow, ...]


def grid(model: ModelIndex) -> Grid:
    """Returns a model's engines and disabled cells by architecture and precision."""
    engines: dict[tuple[str, str], list[EngineEntry]] = {}
    reasons: dict[tuple[str, str], list[str]] = {}
    for engine in model.current:
        for arch in facts.archs_of(engine):
            engines.setdefault((arch, engine.precision), []).append(engine)
    for cell in model.disabled:
        for arch in dict.fromkeys(arch_of(label) for label in cell.targets):
            reasons.setdefault((arch, cell.precision), []).append(cell.reason)
    taken = {*engines, *reasons}
    archs = _in_order({arch for arch, _ in taken}, target_table().arch)
    precisions = _in_order({precision for _, precision in taken}, PRECISIONS)
    return Grid(
        precisions=precisions,
        rows=tuple(
            GridRow(
                arch=arch,
                name=arch_name(arch),
                products=products_of(arch),
                cells=tuple(
                    Cell(
                        engines=tuple(engines.get((arch, precision), ())),
                        reasons=tuple(reasons.get((arch, precision), ())),
                    )
                    for precision in precisions
                ),
            )
            for arch in archs
        ),
    )


def _in_order(found: set[str], known: Iterable[str]) -> tuple[str, ...]:
    order = list(known)
    return (*(one for one in order if one in found), *sorted(found - set(order)))


@dataclass(frozen=True, kw_only=True)
class SpeedChart:
    """Lines over batch sizes that may stand side by side: one machine, and one run for PyTorch's.

    Attributes:
        machine: Which one.
        plot: The chart.
        batches: Batch sizes, the columns of the table beside it.
        series: Its rows.
    """

    machine: str
    plot: Plot
    batches: tuple[int, ...]
    series: tuple[Series, ...]


def speed_charts(model: ModelIndex) -> list[SpeedChart]:
    """Returns a chart for every kind of machine that timed current engines of a model."""
    groups: dict[str, list[Series]] = {}
    for engine in model.current:
        if engine.benchmark is None:
            continue
        name = f"{facts.precision_words(engine)} {engine.toolchain.line}"
        group = groups.setdefault(facts.machine_words(engine.benchmark.machine), [])
        times = engine.benchmark.batches
        group.append(Series(name=name, points={t.batch: t.images_per_second for t in times}))
    return [chart for machine, series in groups.items() if (chart := _chart(machine, series))]


def _chart(machine: str, series: list[Series]) -> SpeedChart | None:
    plot = speed_plot(series)
    if plot is None:
        return None
    batches = tuple(sorted({batch for one in series for batch in one.points}))
    return SpeedChart(machine=machine, plot=plot, batches=batches, series=tuple(series))


def torch_charts(model: ModelIndex) -> list[tuple[EngineEntry, SpeedChart]]:
    """Returns a chart for every current engine that was timed in one run with PyTorch."""
    found = []
    for engine in model.current:
        if engine.comparison is None:
            continue
        rows = [one for one in engine.comparison.batches if min(one.engine_ms, one.pytorch_ms) > 0]
        series = [
            Series(
                name=facts.precision_words(engine),
                points={one.batch: 1000 * one.batch / one.engine_ms for one in rows},
            ),
            Series(
                name="PyTorch",
                points={one.batch: 1000 * one.batch / one.pytorch_ms for one in rows},
                dashed=True,
            ),
        ]
        if chart := _chart(facts.machine_words(engine.comparison.machine), series):
            found.append((engine, chart))
    return found


def accuracy(model: ModelIndex) -> DotPlot | None:
    """Returns the chart of the worst cosine of every current engine that was run."""
    rows = []
    for engine in model.current:
        worst = facts.worst_cosine(engine)
        if worst is None or engine.verification is None:
            continue
        floors = (engine.verification.model_extra or {}).get("tolerance")
        floor = floors.get("cosine") if isinstance(floors, dict) else None
        where = "/".join(facts.archs_of(engine))
        name = f"{where} {facts.precision_words(engine)} {engine.toolchain.line}"
        rows.append((name, worst, floor if isinstance(floor, float) else None))
    return accuracy_plot(rows)


@dataclass(frozen=True, kw_only=True)
class Width:
    """What a feature width means for those who train heads.

    Attributes:
        dim: Features of an image.
        cache_fp32: Bytes of a feature cache, for 1,000 images in float32.
        cache_fp16: The same in float16.
        head: Parameters of a linear head with :data:`CLASSES` classes, biases included.
    """

    dim: int
    cache_fp32: int
    cache_fp16: int
    head: int


def width(dim: int) -> Width:
    """Works out what a feature width means."""
    return Width(dim=dim, cache_fp32=4000 * dim, cache_fp16=2000 * dim, head=CLASSES * (dim + 1))


def preprocess_snippet(model: ModelIndex) -> str:
    """Returns Python that feeds a photo as the weights want it, on Pillow and numpy alone."""
    one = model.preprocess
    shorter = int(one.input_size / one.crop)
    left = one.input_size
    return f"""\
import numpy as np
from PIL import Image

size, shorter = {left}, {shorter}
photo = Image.open("photo.jpg").convert("RGB")
width, height = photo.size
resized = (shorter, int(shorter * height / width)) if width <= height \\
    else (int(shorter * width / height), shorter)
photo = photo.resize(resized, Image.Resampling.{one.interpolation.upper()})
left, top = round((photo.width - size) / 2), round((photo.height - size) / 2)
photo = photo.crop((left, top, left + size, top + size))

mean = np.array({list(one.mean)}, np.float32)
std = np.array({list(one.std)}, np.float32)
pixels = (np.asarray(photo, np.float32) / 255 - mean) / std
batch = pixels.transpose(2, 0, 1)[None].astype(np.float32)  # (1, 3, {left}, {left})"""
