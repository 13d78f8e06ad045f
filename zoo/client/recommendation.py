"""Verdicts: which precision to take on a target, from what is known of its engines."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.schema.closed import Unknown
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.precisions import PRECISION_FACTS, is_lowered
from zoo.schema.records import Status
from zoo.schema.targets import place_of

_NAMED = 3  # operators that are named one by one; of more, the number


def verdicts(model: ModelIndex) -> dict[str, dict[str, str]]:
    """Says of every precision below fp32 whether to take it.

    Returns:
        Architecture and runtime (``sm86-rtx1.7``) to precision to the verdict.
    """
    found: dict[str, dict[str, str]] = {}
    verified = {
        (_place(label), one.precision): one
        for one in model.current
        for label in one.targets
        if one.status == Status.VERIFIED
    }
    for engine in model.current:
        if isinstance(engine.precision, Unknown) or not is_lowered(engine.precision):
            continue
        for label in engine.targets:
            place = _place(label)
            # An engine that is slower than a more exact one is not advised.
            finer = [
                verified.get((place, precision))
                for precision in PRECISION_FACTS[engine.precision].finer
            ]
            found.setdefault(place, {})[engine.precision] = _verdict(engine, filter(None, finer))
    for cell in model.disabled:
        for label in cell.targets:
            found.setdefault(_place(label), {})[cell.precision] = f"none: {cell.reason}"
    return {place: dict(sorted(found[place].items())) for place in sorted(found)}


def kept(engine: EngineEntry) -> str | None:
    """Says which operators of an engine stay in higher precision, None where none does."""
    advice = engine.advice
    if advice is None or not advice.mixed:
        return None
    names = f" ({', '.join(advice.kept)})" if len(advice.kept) <= _NAMED else ""
    return (
        f"{len(advice.kept)} of {advice.operators} operators kept higher{names}, "
        f"{advice.kept_work:.0%} of the work"
    )


def speed_against(engine: EngineEntry, other: EngineEntry) -> float | None:
    """Returns how many times as fast an engine is as another, each at its best batch.

    None where one of them was not timed, or not on the same machine.
    """
    if engine.benchmark is None or other.benchmark is None:
        return None
    if _card(engine) != _card(other):
        return None
    mine, its = (
        max(row.images_per_second for row in one.benchmark.batches)
        for one in (engine, other)
        if one.benchmark
    )
    return mine / its


def cut(value: float, digits: int) -> str:
    """Returns a number with so many digits, cut and not rounded: what is not 1 never reads 1."""
    text = f"{value:.{digits}f}"
    return text if float(text) <= value else f"{value - 0.5 * 10**-digits:.{digits}f}"


def _verdict(engine: EngineEntry, finer: Iterable[EngineEntry]) -> str:
    if engine.status == Status.WITHDRAWN:
        return f"withdrawn: {engine.reason}"
    facts = [text] if (text := kept(engine)) else []
    if engine.verification:
        worst = min(batch.worst_cosine for batch in engine.verification.batches)
        facts.append(f"cosine {cut(worst, 4)} at worst")
    speeds = {
        one.precision: speed for one in finer if (speed := speed_against(engine, one)) is not None
    }
    facts += [f"{speed:.2f} times as fast as {name}" for name, speed in speeds.items()]
    if engine.status == Status.PENDING:
        word = "not run yet"
    elif speeds and min(speeds.values()) < 1:
        word = f"take {min(speeds, key=speeds.__getitem__)}"
    else:
        word = "use it"
    return f"{word}: {', '.join(facts)}" if facts else word


def _place(label: str) -> str:
    return place_of(label)


def _card(engine: EngineEntry) -> object:
    if engine.benchmark is None:
        return None
    machine = engine.benchmark.machine
    return machine.gpu_name or machine.cpu
