"""Planning: compares what a request wants with what a repository has. Nothing is done or written.

What is published is read from the index, a file for each model, and from its exports; build records
are read only of engines that would be made anew, to say why. Blobs are not looked at: that is what
``zoo-farm check`` is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from builders.history import History
from builders.look import Built, Look, Wish
from builders.places import Places
from builders.planned import FarmPlan, PlannedEngine, make_plan
from zoo.errors import ZooError
from zoo.index import ModelIndex
from zoo.repository import Repository

_AT_ONCE = 16  # models that are read at once from a server: reading is waiting


def plan_farm(
    repository: Repository,
    wish: Wish,
    places: Callable[[Sequence[ModelIndex]], Places],
    broken: Mapping[str, ZooError] | None = None,
) -> FarmPlan:
    """Says what a run would do.

    Args:
        repository: What is there.
        wish: What is wanted.
        places: From what is published to what builds for each architecture.
        broken: What is wrong with the manifests that can't be read.

    Raises:
        ZooError: The repository can't be read, or nothing builds for what is asked for.
    """
    threads = 1 if repository.store.local_path("x") else _AT_ONCE
    with ThreadPoolExecutor(threads) as pool:
        names = _listed(repository)
        asked = [name for name in wish.manifests if name in names]
        found = {model.model: model for model in pool.map(repository.model_index, asked) if model}
        where = places(list(found.values()))
        built = Built(repository)
        history = History()
        for model in found.values():
            history.add(model)
        looks = pool.map(
            lambda manifest: Look(repository, wish, manifest, found.get(manifest.id), built).plan(
                where
            ),
            wish.manifests.values(),
        )
        looked = list(looks)
    for look in looked:
        for export in look.exports:
            history.add_export(export)
    engines = [_expect(one, history) for look in looked for one in look.engines]
    engines += [
        PlannedEngine(model=name, archs=(), trt="", label="", action="blocked", reason=str(error))
        for name, error in (broken or {}).items()
    ]
    seconds = sum(
        history.of_export(look.model, dialect) for look in looked for dialect in look.dialects
    )
    return make_plan(repository.store.url, engines, seconds, where.notes)


def _listed(repository: Repository) -> set[str]:
    index = repository.index()
    return {row.model for row in index.models} if index else set()


def _expect(engine: PlannedEngine, history: History) -> PlannedEngine:
    """Adds what an engine is expected to take."""
    if engine.action not in ("build", "export", "verify"):
        return engine
    expected = history.of(engine.model, f"{engine.archs[0]}-{engine.label.partition('-')[2]}")
    seconds = expected.proof if engine.action == "verify" else expected.seconds
    size = 0 if engine.action == "verify" else expected.size
    return engine.model_copy(
        update={"seconds": round(seconds, 1), "size": size, "basis": expected.basis}
    )
