"""Says once that a fact about a cached engine's model was corrected.

The cache remembers for each engine which facts its user was told. They are compared with those of
the signed index, so a fact that was corrected and corrected back is told only to those who were
told the wrong one meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from zoo.schema.corrections import FactChange
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.util.files import write_whole
from zoo.util.loading import parse_json, read_regular


def untold(cache: Path, model: ModelIndex, entry: EngineEntry) -> list[str]:
    """Returns a sentence for each correction that this cache's user was not told of.

    After that they count as told, unless the cache can't be written.

    Args:
        cache: The client's cache.
        model: The model's index.
        entry: The engine that is pulled.
    """
    path = cache / "facts" / f"{model.model}-{entry.engine.sha256}.json"
    now, told = model.facts, _read(path)
    before = _at_the_build(model, entry) if told is None else told
    if told != now:
        with suppress(OSError):  # said again the next time
            write_whole(path, json.dumps(now).encode())
    return [
        _sentence(model, fact, before[fact], value)
        for fact, value in now.items()
        if before.get(fact, value) != value
    ]


def _read(path: Path) -> Mapping[str, str] | None:
    try:
        facts = parse_json(read_regular(path))
    except (OSError, ValueError):
        return None
    if not isinstance(facts, dict):
        return None
    return {str(name): str(value) for name, value in facts.items()}


def _at_the_build(model: ModelIndex, entry: EngineEntry) -> dict[str, str]:
    """Returns the facts that an engine's own documents state and that were corrected since."""
    before: dict[str, str] = {}
    for change in model.corrected if entry.documents else ():
        if change.time > entry.created:
            before.setdefault(change.fact, change.before)
    return before


def _sentence(model: ModelIndex, fact: str, before: str, after: str) -> str:
    latest = [change for change in model.corrected if (change.fact, change.after) == (fact, after)]
    return f"{model.model}: {fact} {_when(latest)}: {after}, was: {before}"


def _when(changes: list[FactChange]) -> str:
    if not changes:
        return "corrected"
    change = changes[-1]
    return f"corrected on {change.time[:10]}" + (f" ({change.by})" if change.by else "")
