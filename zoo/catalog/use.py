"""The box of a model's page that gives the commands for a reader's GPU, and the quick start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from zoo.catalog import commands, facts
from zoo.catalog.commands import Choice, Command
from zoo.catalog.listing import ArchChoice, arch_choices
from zoo.catalog.place import Place
from zoo.schema.closed import Unknown
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.precisions import PRECISION_FACTS
from zoo.schema.records import Status
from zoo.schema.targets import PRECISIONS, arch_of
from zoo.schema.targets_table import target_table


class Option(TypedDict):
    """An engine for an architecture, as the page's script reads it.

    Attributes:
        arch: The architecture.
        precision: The engine's precision.
        words: What the engine is: precision, runtime, speed, size.
        badge: Word and tone of its most important label.
        page: Path of its page.
        target: See :class:`zoo.catalog.commands.Choice`, like the next four.
        extra: As above.
        packages: As above.
        flags: As above.
        arguments: As above.
    """

    arch: str
    precision: str
    words: str
    badge: tuple[str, str]
    page: str
    target: str
    extra: str
    packages: str
    flags: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class UseBox:
    """The box.

    Attributes:
        archs: The choices of GPUs.
        precisions: The choices of precisions.
        options: The engines to choose from, for every architecture the best first.
        start: Index of the option that the page shows before a reader chooses.
        commands: The commands of that option, with slots.
    """

    archs: tuple[ArchChoice, ...]
    precisions: tuple[str, ...]
    options: tuple[Option, ...]
    start: int
    commands: tuple[Command, ...]


def use_box(model: ModelIndex, place: Place) -> UseBox | None:
    """Returns the box of a model; None if nothing of it can be downloaded."""
    found = _usable(model)
    if not found:
        return None
    start = _start(found)
    engine, label = found[start]
    chosen = commands.choice(engine, label)
    archs = {arch_of(label) for _, label in found}
    given = {str(engine.precision) for engine, _ in found}
    return UseBox(
        archs=arch_choices(archs),
        precisions=tuple(name for name in PRECISIONS if name in given),
        options=tuple(_option(model.model, engine, label) for engine, label in found),
        start=start,
        commands=(
            commands.install(place, chosen),
            commands.run(model.model, place, chosen),
            commands.python(model, place, chosen),
            commands.cache(model.model, place, chosen),
        ),
    )


def _usable(model: ModelIndex) -> list[tuple[EngineEntry, str]]:
    """Returns the engines that can be downloaded, once for each target, the best first.

    The order is that of :func:`zoo.client.selection.select`, verified engines before others.
    """
    pairs = [
        (engine, label)
        for engine in model.current
        if engine.status != Status.WITHDRAWN
        and not isinstance(engine.toolchain.kind, Unknown)
        and not isinstance(engine.precision, Unknown)
        for label in engine.targets
    ]
    order = list(target_table().arch)

    def place(pair: tuple[EngineEntry, str]) -> tuple[int, bool, object, int, int, str]:
        engine, label = pair
        arch = arch_of(label)
        assert not isinstance(engine.precision, Unknown)
        return (
            order.index(arch) if arch in order else len(order),
            engine.status != Status.VERIFIED,
            facts.newest_runtime_first(engine),
            len(engine.targets),
            PRECISION_FACTS[engine.precision].preference,
            label,
        )

    return sorted(pairs, key=place)


def _start(found: Sequence[tuple[EngineEntry, str]]) -> int:
    """Returns which engine a page shows first: one that runs anywhere, if it is verified."""

    def rank(index: int) -> tuple[bool, bool, int]:
        engine, label = found[index]
        return engine.status != Status.VERIFIED, arch_of(label) != "cpu", index

    return min(range(len(found)), key=rank)


def _option(model: str, engine: EngineEntry, label: str) -> Option:
    chosen: Choice = commands.choice(engine, label)
    badge = facts.badges(engine)[0]
    best = facts.best_rate(engine)
    speed = f", {facts.rate(best.images_per_second)} images/s" if best else ""
    return Option(
        arch=arch_of(label),
        precision=str(engine.precision),
        words=f"{facts.precision_words(engine)} on {facts.runtime_words(engine)}{speed}, "
        f"{facts.mib(engine.engine.size)}",
        badge=(badge.word, badge.tone),
        page=facts.engine_page(model, engine.record),
        target=chosen.target,
        extra=chosen.extra,
        packages=chosen.packages,
        flags=chosen.flags,
        arguments=chosen.arguments,
    )


@dataclass(frozen=True, kw_only=True)
class QuickStart:
    """The quick start of the index page.

    Attributes:
        model: The model that it uses.
        commands: From nothing to a trained head.
    """

    model: ModelIndex
    commands: tuple[Command, ...]


def quick_start(models: Sequence[ModelIndex], place: Place) -> QuickStart | None:
    """Returns the quick start, with the smallest verified engine that runs on any machine.

    Returns:
        The quick start; with an engine of a GPU, or one that is not verified, only if the
        repository has no other; None if nothing can be downloaded.
    """
    firsts = []
    for model in models:
        if found := _usable(model):
            engine, label = found[_start(found)]
            rank = (engine.status != Status.VERIFIED, arch_of(label) != "cpu", engine.engine.size)
            firsts.append((rank, model.model, model, engine, label))
    if not firsts:
        return None
    _, _, model, engine, label = min(firsts, key=lambda first: first[:2])
    chosen = commands.choice(engine, label)
    return QuickStart(
        model=model,
        commands=(
            commands.install(place, chosen, "caft"),
            commands.cache(model.model, place, chosen),
            commands.head(place, chosen),
        ),
    )
