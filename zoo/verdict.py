"""Verdicts: which precision to take on a target, from what is known of its engines."""

from __future__ import annotations

from zoo.index import EngineEntry, ModelIndex

_NAMED = 3  # operators that are named one by one; of more, the number


def verdicts(model: ModelIndex) -> dict[str, dict[str, str]]:
    """Says of every precision below fp32 whether to take it.

    Returns:
        Architecture and runtime (``sm86-rtx1.7``) to precision to the verdict.
    """
    found: dict[str, dict[str, str]] = {}
    plain = {_place(label): one for one in model.current for label in one.targets if _is_fp32(one)}
    for engine in model.current:
        if _is_fp32(engine):
            continue
        for label in engine.targets:
            place = _place(label)
            found.setdefault(place, {})[engine.precision] = _verdict(engine, plain.get(place))
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


def speed_against(engine: EngineEntry, other: EngineEntry | None) -> float | None:
    """Returns how many times as fast an engine is as another, each at its best batch.

    None where one of them was not timed, or not on the same machine.
    """
    if other is None or engine.benchmark is None or other.benchmark is None:
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


def _verdict(engine: EngineEntry, fp32: EngineEntry | None) -> str:
    if engine.status == "withdrawn":
        return f"withdrawn: {engine.reason}"
    facts = [text] if (text := kept(engine)) else []
    if engine.verification:
        worst = min(batch.worst_cosine for batch in engine.verification.batches)
        facts.append(f"cosine {cut(worst, 4)} at worst")
    speed = speed_against(engine, fp32)
    if speed is not None:
        facts.append(f"{speed:.2f} times as fast as fp32")
    if engine.status == "pending":
        word = "not run yet"
    elif speed is not None and speed < 1:
        word = "take fp32"
    else:
        word = "use it"
    return f"{word}: {', '.join(facts)}" if facts else word


def _is_fp32(engine: EngineEntry) -> bool:
    return engine.precision == "fp32"


def _place(label: str) -> str:
    return "-".join(label.split("-")[:2])


def _card(engine: EngineEntry) -> object:
    machine = engine.benchmark.machine if engine.benchmark else {}
    return machine.get("gpu", {}).get("name") or machine.get("cpu")
