"""A model's page: the verdicts on its engines, its charts, the cost of its feature width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from zoo.catalog import facts
from zoo.catalog.facts import Tone
from zoo.catalog.gpus import known_as
from zoo.catalog.plots import DotPlot, Measured, Plot, Series, accuracy_plot, speed_plot, tone_of
from zoo.client.recommendation import Advice, Verdict, verdicts
from zoo.schema.closed import complete
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.records import Status
from zoo.schema.targets import PRECISIONS, arch_of, place_of
from zoo.schema.targets_table import target_table

COLOURS = 6
"""Colours that lines have in charts: ``--t0`` to ``--t5`` of ``templates/style.css``."""

CLASSES = 10
"""Number of classes of the example head whose size the page gives."""


@dataclass(frozen=True, kw_only=True)
class CellEngine:
    """An engine in the table, with the verdict on it.

    Attributes:
        engine: Its index entry.
        word: The verdict, or the engine's status if it has the highest precision.
        tone: Its colour.
        why: The facts behind the verdict.
    """

    engine: EngineEntry
    word: str
    tone: Tone
    why: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A model's engines for an architecture and a precision.

    Attributes:
        engines: The engines: what is verified first, then the preferred runtime.
        notes: Numbers of the reasons why there are none on some runtimes.
    """

    engines: tuple[CellEngine, ...] = ()
    notes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """An architecture, a column of the table."""

    arch: str
    known: str


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A model's verdicts: a row per precision, a column per architecture.

    Attributes:
        gpus: The columns.
        rows: The rows, each a precision with its cells.
        reasons: Why engines are disabled, numbered from 1 in the order of the notes.
    """

    gpus: tuple[Gpu, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    reasons: tuple[str, ...]


_TONES: Mapping[Advice, Tone] = complete(
    Advice,
    {
        Advice.RECOMMENDED: "good",
        Advice.VERIFIED: "good",
        Advice.NOISE: "plain",
        Advice.SLOWER: "wait",
        Advice.PENDING: "wait",
        Advice.WITHDRAWN: "bad",
        Advice.NONE: "bad",
    },
)


def grid(model: ModelIndex) -> Grid:
    """Returns the verdicts on a model's current engines by precision and architecture."""
    found = verdicts(model.model_copy(update={"engines": model.current}))
    engines: dict[tuple[str, str], list[CellEngine]] = {}
    for engine in sorted(model.current, key=_best_first):
        for label in engine.targets:
            verdict = found.get(place_of(label), {}).get(str(engine.precision))
            cell = engines.setdefault((str(engine.precision), arch_of(label)), [])
            cell.append(_cell_engine(engine, verdict))
    reasons: dict[str, int] = {}
    notes: dict[tuple[str, str], dict[int, None]] = {}
    for disabled in model.disabled:
        number = reasons.setdefault(disabled.reason, len(reasons) + 1)
        for arch in map(arch_of, disabled.targets):
            notes.setdefault((disabled.precision, arch), {})[number] = None
    taken = {*engines, *notes}
    archs = facts.in_order({arch for _, arch in taken}, target_table().arch)
    precisions = facts.in_order({precision for precision, _ in taken}, PRECISIONS)
    return Grid(
        gpus=tuple(Gpu(arch=arch, known=known_as(arch)) for arch in archs),
        rows=tuple(
            (
                precision,
                tuple(
                    Cell(
                        engines=tuple(engines.get((precision, arch), ())),
                        notes=tuple(notes.get((precision, arch), ())),
                    )
                    for arch in archs
                ),
            )
            for precision in precisions
        ),
        reasons=tuple(reasons),
    )


def _best_first(engine: EngineEntry) -> tuple[bool, object]:
    return engine.status != Status.VERIFIED, facts.newest_runtime_first(engine)


def _cell_engine(engine: EngineEntry, verdict: Verdict | None) -> CellEngine:
    if verdict is None:
        badge = facts.badges(engine)[0]
        return CellEngine(engine=engine, word=badge.word, tone=badge.tone, why=badge.why or "")
    why = ", ".join(verdict.facts)
    return CellEngine(engine=engine, word=verdict.word, tone=_TONES[verdict.advice], why=why)


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

    @property
    def more(self) -> int:
        """How many rows of the table the chart does not show."""
        return len(self.series) - len(self.plot.lines)


def speed_charts(model: ModelIndex) -> list[SpeedChart]:
    """Returns a chart for every kind of machine that benchmarked a model's current engines.

    They are in the order of the architectures. A chart has at most as many lines as there are
    colours: if there are more engines, it shows the fastest of each precision, and the table below
    it has them all.
    """
    groups: dict[str, list[tuple[EngineEntry, Series]]] = {}
    order = list(target_table().arch)
    for engine in sorted(model.current, key=lambda engine: _place(engine, order)):
        if engine.benchmark is None:
            continue
        name = f"{facts.precision_words(engine)} {engine.toolchain.line}"
        group = groups.setdefault(facts.machine_words(engine.benchmark.machine), [])
        times = engine.benchmark.batches
        series = Series(name=name, points={t.batch: t.images_per_second for t in times})
        group.append((engine, series))
    charts = [
        _chart(machine, [series for _, series in group], _shown(group))
        for machine, group in groups.items()
    ]
    return [chart for chart in charts if chart]


def _place(engine: EngineEntry, order: Sequence[str]) -> int:
    archs = facts.archs_of(engine)
    return order.index(archs[0]) if archs and archs[0] in order else len(order)


def _shown(group: list[tuple[EngineEntry, Series]]) -> list[Series]:
    """Returns the lines of a chart that is to stay readable."""
    best: dict[str, Series] = {}
    for engine, series in group:
        known = best.get(str(engine.precision))
        if known is None or _top(series) > _top(known):
            best[str(engine.precision)] = series
    if len(best) < len(group) <= COLOURS:
        return [series for _, series in group]
    return [replace(best[name], tone=tone_of(name)) for name in facts.in_order({*best}, PRECISIONS)]


def _top(series: Series) -> float:
    return max(series.points.values(), default=0)


def _chart(
    machine: str, series: list[Series], shown: list[Series] | None = None
) -> SpeedChart | None:
    plot = speed_plot(series if shown is None else shown)
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
    lanes: dict[str, list[Measured]] = {}
    for engine in model.current:
        worst = facts.worst_cosine(engine)
        if worst is None or engine.verification is None:
            continue
        tolerance = (engine.verification.model_extra or {}).get("tolerance")
        floor = tolerance.get("cosine") if isinstance(tolerance, dict) else None
        for arch in facts.archs_of(engine):
            measured = Measured(
                precision=str(engine.precision),
                cosine=worst,
                floor=floor if isinstance(floor, float) else None,
            )
            lanes.setdefault(arch, []).append(measured)
    order = facts.in_order(set(lanes), target_table().arch)
    return accuracy_plot([(arch, lanes[arch]) for arch in order])


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
