"""What the pages say about an engine, derived from its index entry. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from typing_extensions import assert_never

from zoo.client.recommendation import cut
from zoo.schema.closed import complete
from zoo.schema.floors import LIMITS, Style
from zoo.schema.index import EngineEntry, TimedBatch, VerificationSummary
from zoo.schema.measurements import MachineDescription
from zoo.schema.records import PrecisionStatus, Status
from zoo.schema.runtimes import preference_of, title_of
from zoo.schema.targets import arch_of
from zoo.schema.targets_table import target_table

Tone = Literal["good", "wait", "bad", "plain"]


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A label on an engine.

    Attributes:
        word: The label's text.
        tone: Its colour; the text carries the meaning without it.
        why: Its tooltip, None if the text is self-explanatory.
    """

    word: str
    tone: Tone
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of an engine's verification: its heading and a cell for each batch size."""

    title: str
    cells: tuple[str, ...]


_STATUS: Mapping[Status, tuple[Tone, str]] = complete(
    Status,
    {
        Status.VERIFIED: (
            "good",
            "its features match PyTorch's within tolerance, image by image, on this target",
        ),
        Status.PENDING: ("wait", "built, but not yet run on this GPU"),
        Status.WITHDRAWN: ("bad", "no longer distributed"),
    },
)
_SEEDED = "random weights for testing the farm; the features are meaningless"
_NOT_INSPECTED = "the engine was not inspected to confirm which precision its layers run in"
_SLOWER = "PyTorch was faster on the same machine"
DISABLED = Badge(
    word="disabled", tone="bad", why="no usable engine could be built; the reason is given"
)
"""Label of a target and precision that the farm gave up on."""

LEGEND = (
    *(Badge(word=word, tone=tone, why=why) for word, (tone, why) in _STATUS.items()),
    DISABLED,
    Badge(word="dry run", tone="bad", why=_SEEDED),
    Badge(word="precision not confirmed", tone="plain", why=_NOT_INSPECTED),
    Badge(word="slower than PyTorch", tone="wait", why=_SLOWER),
)
"""All labels with their meanings, for readers who can't hover over one."""


def badges(engine: EngineEntry) -> list[Badge]:
    """Returns an engine's labels, the most important first."""
    tone, meaning = _STATUS[engine.status]
    why = meaning if engine.status != Status.WITHDRAWN else engine.reason
    labels = [Badge(word=engine.status, tone=tone, why=why)]
    if engine.dry_run:
        labels.append(Badge(word="dry run", tone="bad", why=_SEEDED))
    if engine.superseded:
        labels.append(Badge(word="superseded", tone="wait", why="replaced by a newer engine"))
    match engine.precision_status:
        case PrecisionStatus.PROVEN:
            pass
        case PrecisionStatus.UNPROVEN:
            labels.append(Badge(word="precision not confirmed", tone="plain", why=_NOT_INSPECTED))
        case never:
            assert_never(never)
    if slower := slower_words(engine):
        labels.append(Badge(word=slower, tone="wait", why=_SLOWER))
    return labels


def slower_words(engine: EngineEntry) -> str | None:
    """Returns at which batch sizes PyTorch was faster; None if at none or if it was not timed."""
    slower = engine.comparison.slower_at if engine.comparison else ()
    return f"slower than PyTorch at batch {', '.join(map(str, slower))}" if slower else None


def archs_of(engine: EngineEntry) -> tuple[str, ...]:
    """Returns the architectures that an index entry lists its engine for, the oldest first."""
    return in_order({arch_of(label) for label in engine.targets}, target_table().arch)


def in_table_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Sorts labels of targets by architecture, the oldest first."""
    order = list(target_table().arch)

    def place(label: str) -> int:
        arch = arch_of(label)
        return order.index(arch) if arch in order else len(order)

    return tuple(sorted(labels, key=place))


def in_order(names: set[str], known: Iterable[str]) -> tuple[str, ...]:
    """Sorts names in the order in which they are known; unknown ones go last, by alphabet."""
    order = list(known)
    return (*(name for name in order if name in names), *sorted(names - set(order)))


def precision_words(engine: EngineEntry) -> str:
    """Returns an engine's precision, with ``mixed`` if some operators run in a higher one."""
    mixed = engine.advice is not None and engine.advice.mixed
    return engine.precision + " mixed" * mixed


def runtime_words(engine: EngineEntry) -> str:
    """Returns the runtime's full name and version: ``TensorRT-RTX 1.7.1.116``."""
    toolchain = engine.toolchain
    return f"{title_of(toolchain.kind)} {toolchain.version}"


def best_rate(engine: EngineEntry) -> TimedBatch | None:
    """Returns the benchmark row with the most images per second, None without a benchmark."""
    rows = engine.benchmark.batches if engine.benchmark else ()
    return max(rows, key=lambda row: row.images_per_second, default=None)


def worst_cosine(engine: EngineEntry) -> float | None:
    """Returns the lowest cosine of any image at any batch size, None if it was not verified."""
    rows = engine.verification.batches if engine.verification else ()
    return min((row.worst_cosine for row in rows), default=None)


def machine_words(machine: MachineDescription) -> str:
    """Returns a short description of the machine that took a measurement."""
    gpu = machine.gpu
    if gpu and gpu.name:
        driver = f", driver {gpu.driver}" if gpu.driver else ""
        return f"{gpu.name}{driver}"
    if machine.cpu:
        cores = f", {machine.cores} cores" if machine.cores else ""
        return f"{machine.cpu}{cores}"
    return "an unnamed machine"


def model_page(model: str) -> str:
    """Returns the path of a model's page in the site."""
    return f"models/{model}.html"


def engine_page(model: str, record: str) -> str:
    """Returns the path of an engine's page: named by its build key, so links stay valid."""
    return f"engines/{model}/{record[:16]}.html"


def by_record(engines: Iterable[EngineEntry]) -> dict[str, list[EngineEntry]]:
    """Groups index entries by engine; an engine that serves several GPUs has several entries."""
    grouped: dict[str, list[EngineEntry]] = {}
    for engine in engines:
        grouped.setdefault(engine.record, []).append(engine)
    return grouped


def newest_runtime_first(engine: EngineEntry) -> tuple[int, tuple[int, ...]]:
    """Returns the sort key of an engine's runtime: the client's preference, then the newest."""
    toolchain = engine.toolchain
    version = tuple(-int(part) for part in toolchain.version.split(".") if part.isdecimal())
    return preference_of(toolchain.kind), version


# Formats of numbers. templates/catalog.js formats them the same way.


def mib(size: float) -> str:
    """Returns bytes as ``13.1 MiB``."""
    return f"{size / 2**20:,.1f} MiB"


def rate(value: float) -> str:
    """Returns images per second as ``1,234`` or ``12.3``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def cosine(value: float) -> str:
    """Returns a cosine with six digits, truncated so that a cosine below 1 never shows as 1."""
    return cut(value, 6)


def verified_columns(verification: VerificationSummary) -> list[Column]:
    """Returns what was measured against the tolerance, as columns with a cell for each batch."""
    return [
        Column(
            title=limit.title,
            cells=tuple(
                _cell(limit.style, getattr(row, limit.measured, None))
                for row in verification.batches
            ),
        )
        for limit in LIMITS.values()
    ]


def _cell(style: Style, number: object) -> str:
    if not isinstance(number, float | int):  # other versions may not have measured it
        return "–"
    match style:
        case Style.COSINE:
            return cosine(number)
        case Style.ERROR:
            return f"{number:.2g}"
        case Style.SHARE:
            return f"{number:.1%}"
        case _:
            assert_never(style)


def when(time: str) -> str:
    """Returns a time in UTC as ``2026-11-23 13:16``."""
    return time[:16].replace("T", " ")
