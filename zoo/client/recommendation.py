"""Recommends a precision for each target from its engines' accuracy and speed."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.schema.closed import Unknown
from zoo.schema.index import BenchmarkSummary, EngineEntry, ModelIndex
from zoo.schema.precisions import PRECISION_FACTS, is_lowered
from zoo.schema.records import Status
from zoo.schema.targets import place_of

_MAX_LISTED = 3  # operators to list by name; if there are more, only their number is given


def verdicts(model: ModelIndex) -> dict[str, dict[str, str]]:
    """Returns a recommendation for each precision below fp32.

    Returns:
        Recommendations by place (architecture and runtime, ``sm86-rtx1.7``) and precision.
    """
    by_place: dict[str, dict[str, str]] = {}
    verified = {
        (place_of(label), engine.precision): engine
        for engine in model.current
        for label in engine.targets
        if engine.status == Status.VERIFIED
    }
    for engine in model.current:
        if isinstance(engine.precision, Unknown) or not is_lowered(engine.precision):
            continue
        for label in engine.targets:
            place = place_of(label)
            # An engine that is slower than a more accurate one is not recommended.
            finer = [
                verified.get((place, precision))
                for precision in PRECISION_FACTS[engine.precision].finer
            ]
            by_place.setdefault(place, {})[engine.precision] = _verdict(engine, filter(None, finer))
    for cell in model.disabled:
        for label in cell.targets:
            by_place.setdefault(place_of(label), {})[cell.precision] = f"none: {cell.reason}"
    return {place: dict(sorted(by_place[place].items())) for place in sorted(by_place)}


def kept(engine: EngineEntry) -> str | None:
    """Describes the operators that an engine keeps in higher precision, or None if none are."""
    advice = engine.advice
    if advice is None or not advice.mixed:
        return None
    names = f" ({', '.join(advice.kept)})" if len(advice.kept) <= _MAX_LISTED else ""
    return (
        f"{len(advice.kept)} of {advice.operators} operators in higher precision{names}, "
        f"{advice.kept_work:.0%} of the compute"
    )


def speed_against(engine: EngineEntry, other: EngineEntry) -> float | None:
    """Returns an engine's speed relative to another's, each at its fastest batch size.

    None if either has not been benchmarked, or they ran on different processors.
    """
    if engine.benchmark is None or other.benchmark is None:
        return None
    if _processor(engine.benchmark) != _processor(other.benchmark):
        return None
    return _best_speed(engine.benchmark) / _best_speed(other.benchmark)


def cut(value: float, digits: int) -> str:
    """Formats a number truncated to ``digits`` decimals, so that 0.99999 is not shown as 1."""
    text = f"{value:.{digits}f}"
    return text if float(text) <= value else f"{value - 0.5 * 10**-digits:.{digits}f}"


def _verdict(engine: EngineEntry, finer: Iterable[EngineEntry]) -> str:
    if engine.status == Status.WITHDRAWN:
        return f"withdrawn: {engine.reason}"
    facts = [text] if (text := kept(engine)) else []
    if engine.verification:
        worst = min(batch.worst_cosine for batch in engine.verification.batches)
        facts.append(f"worst cosine {cut(worst, 4)}")
    speeds = {
        other.precision: speed
        for other in finer
        if (speed := speed_against(engine, other)) is not None
    }
    facts += [f"{speed:.2f} times as fast as {name}" for name, speed in speeds.items()]
    if engine.status == Status.PENDING:
        word = "not verified yet"
    elif speeds and min(speeds.values()) < 1:
        word = f"use {min(speeds, key=speeds.__getitem__)} instead"
    else:
        word = "recommended"
    return f"{word}: {', '.join(facts)}" if facts else word


def _best_speed(benchmark: BenchmarkSummary) -> float:
    return max(row.images_per_second for row in benchmark.batches)


def _processor(benchmark: BenchmarkSummary) -> str | None:
    return benchmark.machine.gpu_name or benchmark.machine.cpu
