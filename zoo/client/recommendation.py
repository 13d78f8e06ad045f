"""Recommends a precision for each target from its engines' accuracy and speed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from zoo.schema.closed import Unknown
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.intervals import Interval, quotient
from zoo.schema.measurements import MachineDescription
from zoo.schema.precisions import PRECISION_FACTS, is_lowered
from zoo.schema.records import Status
from zoo.schema.targets import place_of
from zoo.util.strenum import StrEnum

_MAX_LISTED = 3  # operators to list by name; if there are more, only their number is given


@dataclass(frozen=True)
class Speed:
    """The speed of one engine relative to another.

    Attributes:
        ratio: The number.
        interval: Encloses it.
        batch: The batch size.
    """

    ratio: float
    interval: Interval
    batch: int

    @property
    def is_noise(self) -> bool:
        """Whether either engine may be the faster one."""
        return self.interval[0] <= 1 <= self.interval[1]


class Advice(StrEnum):
    """What a verdict advises."""

    RECOMMENDED = "recommended"
    VERIFIED = "verified"
    NOISE = "noise"
    SLOWER = "slower"
    PENDING = "pending"
    WITHDRAWN = "withdrawn"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A recommendation for a precision on a place.

    Attributes:
        advice: What it advises.
        word: The advice in words, with the engine to use instead.
        facts: What it is based on, or why there is no engine.
    """

    advice: Advice
    word: str
    facts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.word}: {', '.join(self.facts)}" if self.facts else self.word


def verdicts(model: ModelIndex) -> dict[str, dict[str, Verdict]]:
    """Returns a recommendation for each precision below fp32.

    Returns:
        Recommendations by place (architecture and runtime, ``sm86-rtx1.7``) and precision.
    """
    by_place: dict[str, dict[str, Verdict]] = {}
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
            none = Verdict(advice=Advice.NONE, word="none", facts=(cell.reason,))
            by_place.setdefault(place_of(label), {})[cell.precision] = none
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


def speed_against(engine: EngineEntry, other: EngineEntry) -> Speed | None:
    """Returns an engine's speed relative to another's, at its fastest batch size that both have.

    On a CPU only ratios to PyTorch are compared, which were timed in turns: a latency depends on
    what the machine did at that moment. A GPU's clock is steadier, so its latencies will do.

    Returns:
        The speed; None if it was not measured for both on one kind of processor, or without an
        interval.
    """
    return _by_ratio(engine, other) or _by_latency(engine, other)


def _by_ratio(engine: EngineEntry, other: EngineEntry) -> Speed | None:
    mine, others = engine.comparison, other.comparison
    if mine is None or others is None or mine.pytorch != others.pytorch:
        return None
    if not _is_same(mine.machine, others.machine):
        return None
    theirs = {row.batch: row for row in others.batches}
    speeds = []
    for row in mine.batches:
        there = theirs.get(row.batch)
        if there is None or not row.ratio or not there.ratio:
            continue
        if row.ratio_interval and there.ratio_interval:
            interval = quotient(row.ratio_interval, there.ratio_interval)
            speed = Speed(row.ratio / there.ratio, interval, row.batch)
            speeds.append((row.batch / row.engine_ms, speed))
    return _fastest(speeds)


def _by_latency(engine: EngineEntry, other: EngineEntry) -> Speed | None:
    mine, others = engine.benchmark, other.benchmark
    if mine is None or others is None or mine.machine.gpu_name is None:
        return None
    if not _is_same(mine.machine, others.machine):
        return None
    theirs = {row.batch: row for row in others.batches}
    speeds = []
    for row in mine.batches:
        there = theirs.get(row.batch)
        if there is None or min(row.latency_ms, there.latency_ms) <= 0:
            continue
        if row.interval_ms and there.interval_ms:
            interval = quotient(there.interval_ms, row.interval_ms)
            speed = Speed(there.latency_ms / row.latency_ms, interval, row.batch)
            speeds.append((row.images_per_second, speed))
    return _fastest(speeds)


def _fastest(speeds: list[tuple[float, Speed]]) -> Speed | None:
    return max(speeds, key=lambda pair: pair[0])[1] if speeds else None


def cut(value: float, digits: int) -> str:
    """Formats a number truncated to ``digits`` decimals, so that 0.99999 is not shown as 1."""
    text = f"{value:.{digits}f}"
    return text if float(text) <= value else f"{value - 0.5 * 10**-digits:.{digits}f}"


def _verdict(engine: EngineEntry, finer: Iterable[EngineEntry]) -> Verdict:
    if engine.status == Status.WITHDRAWN:
        reason = (engine.reason,) if engine.reason else ()
        return Verdict(advice=Advice.WITHDRAWN, word="withdrawn", facts=reason)
    facts = [text] if (text := kept(engine)) else []
    if engine.verification:
        worst = min(batch.worst_cosine for batch in engine.verification.batches)
        facts.append(f"worst cosine {cut(worst, 6)}")
    speeds = {str(other.precision): speed_against(engine, other) for other in finer}
    facts += [_speed_words(name, speed) for name, speed in speeds.items()]
    advice, word = _advice(engine, speeds)
    return Verdict(advice=advice, word=word, facts=tuple(facts))


def _speed_words(name: str, speed: Speed | None) -> str:
    if speed is None:
        return f"speed against {name} not measured"
    low, high = speed.interval
    noise = ", which is within noise" if speed.is_noise else ""
    return (
        f"{speed.ratio:.2f} times ({low:.2f} to {high:.2f}) as fast as {name} at batch "
        f"{speed.batch}{noise}"
    )


def _advice(engine: EngineEntry, speeds: Mapping[str, Speed | None]) -> tuple[Advice, str]:
    """Returns the advice on an engine: one that is not known to be faster gains nothing."""
    if engine.status == Status.PENDING:
        return Advice.PENDING, "pending"
    known = {name: speed for name, speed in speeds.items() if speed is not None}
    if slower := {name: speed.ratio for name, speed in known.items() if speed.interval[1] < 1}:
        return Advice.SLOWER, f"use {min(slower, key=slower.__getitem__)} instead"
    if noise := [name for name, speed in known.items() if speed.is_noise]:
        return Advice.NOISE, f"not known to be faster than {noise[0]}"
    if len(known) == len(speeds):
        return Advice.RECOMMENDED, "recommended"
    return Advice.VERIFIED, "verified"


def _is_same(mine: MachineDescription, others: MachineDescription) -> bool:
    """Whether two measurements were made on the same kind of processor."""
    return (mine.gpu_name or mine.cpu) == (others.gpu_name or others.cpu)
