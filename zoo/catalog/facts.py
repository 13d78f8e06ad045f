"""Facts: what the pages say of an engine, worked out of what the index says. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from zoo.client.recommendation import cut
from zoo.schema.closed import complete
from zoo.schema.index import EngineEntry, TimedBatch
from zoo.schema.measurements import MachineDescription
from zoo.schema.records import PrecisionStatus, Status
from zoo.schema.runtimes import title_of
from zoo.schema.targets import arch_of

Tone = Literal["good", "wait", "bad", "plain"]


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A word about an engine, and what it means.

    Attributes:
        word: What is shown.
        tone: How it is coloured; the word alone says it too.
        why: What it means, or None where the word is enough.
    """

    word: str
    tone: Tone
    why: str | None = None


_STATUS: Mapping[Status, tuple[Tone, str]] = complete(
    Status,
    {
        Status.VERIFIED: (
            "good",
            "its features were compared with PyTorch's, row by row, on this target",
        ),
        Status.PENDING: ("wait", "built, and not run on that GPU yet"),
        Status.WITHDRAWN: ("bad", "not handed out any more"),
    },
)
_SEEDED = "seeded weights: of no use for features"
_UNASKED = "nobody asked the engine which precision it runs in"
_SLOWER = "PyTorch was faster on the same machine"


LEGEND = (
    *(Badge(word=word, tone=tone, why=why) for word, (tone, why) in _STATUS.items()),
    Badge(word="disabled", tone="bad", why="the farm found that it can't be had, and says why"),
    Badge(word="dry run", tone="bad", why=_SEEDED),
    Badge(word="precision unproven", tone="plain", why=_UNASKED),
    Badge(word="slower than PyTorch", tone="wait", why=_SLOWER),
)
"""What the words mean, for who can't point at one."""


def badges(engine: EngineEntry) -> list[Badge]:
    """Returns what there is to say of an engine at a glance, the most important first."""
    tone, meaning = _STATUS[engine.status]
    why = meaning if engine.status != Status.WITHDRAWN else engine.reason
    found = [Badge(word=engine.status, tone=tone, why=why)]
    if engine.dry_run:
        found.append(Badge(word="dry run", tone="bad", why=_SEEDED))
    if engine.superseded:
        found.append(Badge(word="superseded", tone="wait", why="a newer engine took its place"))
    if engine.precision_status == PrecisionStatus.UNPROVEN:
        found.append(Badge(word="precision unproven", tone="plain", why=_UNASKED))
    if slower := slower_words(engine):
        found.append(Badge(word=slower, tone="wait", why=_SLOWER))
    return found


def slower_words(engine: EngineEntry) -> str | None:
    """Says at which batch sizes PyTorch was faster, None where it was not or was not timed."""
    slower = engine.comparison.slower_at if engine.comparison else ()
    return f"slower than PyTorch at batch {', '.join(map(str, slower))}" if slower else None


def archs_of(engine: EngineEntry) -> tuple[str, ...]:
    """Returns the architectures that an engine is current for."""
    return tuple(dict.fromkeys(arch_of(label) for label in engine.targets))


def precision_words(engine: EngineEntry) -> str:
    """Returns an engine's precision, with a word where operators stay in a higher one."""
    mixed = engine.advice is not None and engine.advice.mixed
    return engine.precision + " mixed" * mixed


def runtime_words(engine: EngineEntry) -> str:
    """Returns the runtime in full: ``TensorRT-RTX 1.7.1.116``."""
    toolchain = engine.toolchain
    return f"{title_of(toolchain.kind)} {toolchain.version}"


def best_rate(engine: EngineEntry) -> TimedBatch | None:
    """Returns the benchmark row with the most images per second, None without a benchmark."""
    rows = engine.benchmark.batches if engine.benchmark else ()
    return max(rows, key=lambda row: row.images_per_second, default=None)


def worst_cosine(engine: EngineEntry) -> float | None:
    """Returns the cosine of the worst row of any batch, None where it was not run."""
    rows = engine.verification.batches if engine.verification else ()
    return min((row.worst_cosine for row in rows), default=None)


def machine_words(machine: MachineDescription) -> str:
    """Says in a few words which machine took some numbers."""
    gpu = machine.gpu
    if gpu and gpu.name:
        driver = f", driver {gpu.driver}" if gpu.driver else ""
        return f"{gpu.name}{driver}"
    if machine.cpu:
        cores = f", {machine.cores} cores" if machine.cores else ""
        return f"{machine.cpu}{cores}"
    return "a machine that was not named"


def model_page(model: str) -> str:
    """Returns where a model's page lies in the site."""
    return f"models/{model}.html"


def engine_page(model: str, record: str) -> str:
    """Returns where an engine's page lies: by build key, so that a link stays what it was."""
    return f"engines/{model}/{record[:16]}.html"


def by_record(engines: Iterable[EngineEntry]) -> dict[str, list[EngineEntry]]:
    """Groups what the index says by engine; of one that serves several GPUs it has several."""
    found: dict[str, list[EngineEntry]] = {}
    for engine in engines:
        found.setdefault(engine.record, []).append(engine)
    return found


# Words for numbers. The page's script writes the same ones.


def mib(size: float) -> str:
    """Returns bytes as ``13.1 MiB``."""
    return f"{size / 2**20:,.1f} MiB"


def rate(value: float) -> str:
    """Returns images per second as ``1,234`` or ``12.3``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def cosine(value: float) -> str:
    """Returns a cosine with six digits, cut and not rounded: one that is not 1 never reads 1."""
    return cut(value, 6)


def when(time: str) -> str:
    """Returns a time in UTC as ``2026-11-23 13:16``."""
    return time[:16].replace("T", " ")
