"""A model's page: its engines as a grid, its uses, its preprocessing and its charts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from typing_extensions import assert_never

from zoo.catalog import facts
from zoo.catalog.gpus import arch_name, products_of
from zoo.catalog.plots import DotPlot, Plot, Series, accuracy_plot, speed_plot
from zoo.inference.crop import border_colour, resized_input
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.manifest import CropMode, Preprocess, sides
from zoo.schema.targets import PRECISIONS, arch_of
from zoo.schema.targets_table import target_table

CLASSES = 10
"""Number of classes of the example head whose size the page gives."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A model's engines for an architecture and a precision, or the reasons why there are none."""

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


def _in_order(names: set[str], known: Iterable[str]) -> tuple[str, ...]:
    """Sorts names in the order in which they are known; unknown ones go last, by alphabet."""
    order = list(known)
    return (*(name for name in order if name in names), *sorted(names - set(order)))


@dataclass(frozen=True, kw_only=True)
class SpeedChart:
    """A chart of speed by batch size, with only numbers that are comparable.

    They come from one kind of machine; in a comparison with PyTorch, from one run.

    Attributes:
        machine: The machine.
        plot: The chart.
        batches: Batch sizes, the columns of the table below it.
        series: The rows of that table.
    """

    machine: str
    plot: Plot
    batches: tuple[int, ...]
    series: tuple[Series, ...]


def speed_charts(model: ModelIndex) -> list[SpeedChart]:
    """Returns a chart for every kind of machine that benchmarked a model's current engines."""
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
    batches = tuple(sorted({batch for line in series for batch in line.points}))
    return SpeedChart(machine=machine, plot=plot, batches=batches, series=tuple(series))


def torch_charts(model: ModelIndex) -> list[tuple[EngineEntry, SpeedChart]]:
    """Returns a chart for every current engine that was benchmarked against PyTorch."""
    charts = []
    for engine in model.current:
        if engine.comparison is None:
            continue
        rows = [row for row in engine.comparison.batches if min(row.engine_ms, row.pytorch_ms) > 0]
        series = [
            Series(
                name=facts.precision_words(engine),
                points={row.batch: 1000 * row.batch / row.engine_ms for row in rows},
            ),
            Series(
                name="PyTorch",
                points={row.batch: 1000 * row.batch / row.pytorch_ms for row in rows},
                dashed=True,
            ),
        ]
        if chart := _chart(facts.machine_words(engine.comparison.machine), series):
            charts.append((engine, chart))
    return charts


def accuracy(model: ModelIndex) -> DotPlot | None:
    """Returns the chart of the lowest cosine of every current engine that was verified."""
    rows = []
    for engine in model.current:
        worst = facts.worst_cosine(engine)
        if worst is None or engine.verification is None:
            continue
        tolerance = (engine.verification.model_extra or {}).get("tolerance")
        floor = tolerance.get("cosine") if isinstance(tolerance, dict) else None
        where = "/".join(facts.archs_of(engine))
        name = f"{where} {facts.precision_words(engine)} {engine.toolchain.line}"
        rows.append((name, worst, floor if isinstance(floor, float) else None))
    return accuracy_plot(rows)


@dataclass(frozen=True, kw_only=True)
class Width:
    """What a model's feature width costs when a head is trained on it.

    Attributes:
        dim: Features per image.
        cache_fp32: Bytes of a feature cache of 1,000 images in float32.
        cache_fp16: The same in float16.
        head: Parameters of a linear head with :data:`CLASSES` classes, biases included.
    """

    dim: int
    cache_fp32: int
    cache_fp16: int
    head: int


def width(dim: int) -> Width:
    """Returns the costs of a feature width."""
    return Width(dim=dim, cache_fp32=4000 * dim, cache_fp16=2000 * dim, head=CLASSES * (dim + 1))


def resize_words(preprocess: Preprocess) -> str:
    """Returns how a photo becomes an input, up to its pixels, as the beginning of a sentence."""
    height, width = resized_input(preprocess)
    how = f"({preprocess.interpolation})"
    crop = f"crop the centre {preprocess.height} × {preprocess.width}"
    match preprocess.crop_mode:
        case CropMode.CENTER if width == height:
            words = f"Resize the shorter side to {width} pixels {how}, {crop}"
        case CropMode.CENTER:
            words = f"Resize, in its aspect ratio, to cover {height} × {width} pixels {how}, {crop}"
        case CropMode.SQUASH:
            words = f"Resize to {height} × {width} pixels, whatever its aspect ratio {how}"
            words += "" if (height, width) == sides(preprocess.input_size) else f", {crop}"
        case CropMode.BORDER:
            red, green, blue = border_colour(preprocess)
            words = (
                f"Resize, in its aspect ratio, to fit into {height} × {width} pixels {how}, "
                f"{crop}, fill what it does not cover with the colour {red}, {green}, {blue}"
            )
        case _:
            assert_never(preprocess.crop_mode)
    return words


def preprocess_snippet(model: ModelIndex) -> str:
    """Returns Python code that preprocesses a photo for a model with only Pillow and NumPy."""
    preprocess = model.preprocess
    height, width = sides(preprocess.input_size)
    return f"""\
import numpy as np
from PIL import Image

{_fit_code(preprocess)}

mean = np.array({list(preprocess.mean)}, np.float32)
std = np.array({list(preprocess.std)}, np.float32)
pixels = (np.asarray(photo, np.float32) / 255 - mean) / std
batch = pixels.transpose(2, 0, 1)[None].astype(np.float32)  # (1, 3, {height}, {width})"""


def _fit_code(preprocess: Preprocess) -> str:
    """Returns Python code that opens, resizes and crops a photo."""
    (high, wide), crop_mode = resized_input(preprocess), preprocess.crop_mode
    match crop_mode:
        case CropMode.CENTER if isinstance(preprocess.input_size, int) and preprocess.crop <= 1:
            return _square_code(preprocess.input_size, high, preprocess.interpolation)
        case CropMode.CENTER if high == wide:
            resized = f"(max({wide}, int({wide} * width / height)), "
            resized += f"max({high}, int({high} * height / width)))"
        case CropMode.CENTER | CropMode.BORDER:
            larger = "max" if crop_mode is CropMode.BORDER else "min"
            ratio = f"{larger}(height / {high}, width / {wide})"
            resized = f"[max(1, round(side / {ratio})) for side in (width, height)]"
        case CropMode.SQUASH:
            resized = f"({wide}, {high})"
        case _:
            assert_never(crop_mode)
    colour = border_colour(preprocess)
    return f"""\
def start(size, resized):
    return (size - resized) // 2 if resized < size else -round((resized - size) / 2)

whole = Image.open("photo.jpg").convert("RGB")
width, height = whole.size
resized = {resized}
how = Image.Resampling.{preprocess.interpolation.upper()}
whole = whole.resize((resized[0], height), how).resize(resized, how)  # rows, then columns
photo = Image.new("RGB", ({preprocess.width}, {preprocess.height}), {colour})
left, top = start(photo.width, whole.width), start(photo.height, whole.height)
photo.paste(whole, (left, top))"""


def _square_code(size: int, shorter: int, interpolation: str) -> str:
    return f"""\
size, shorter = {size}, {shorter}
photo = Image.open("photo.jpg").convert("RGB")
width, height = photo.size
resized = (shorter, int(shorter * height / width)) if width <= height \\
    else (int(shorter * width / height), shorter)
how = Image.Resampling.{interpolation.upper()}
photo = photo.resize((resized[0], height), how).resize(resized, how)  # rows, then columns
left, top = round((photo.width - size) / 2), round((photo.height - size) / 2)
photo = photo.crop((left, top, left + size, top + size))"""
