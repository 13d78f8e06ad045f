"""Planning: compares what a request wants with what a repository has. Nothing is done or written.

What is published is read from the index, a file for each model, and from its exports; build records
are read only of engines that would be made anew, to say why. Blobs are not looked at: that is what
``zoo-farm check`` is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from builders.history.durations import Expected, History
from builders.history.failures import Failures
from builders.planning.decide import decide
from builders.planning.decision import Action, Cause, Decision
from builders.planning.known import RepositoryKnown
from builders.planning.report import FarmPlan, make_plan, planned
from builders.planning.request import Request
from builders.toolchains.elsewhere import Places
from zoo.repository.repository import Repository
from zoo.schema.index import ModelIndex
from zoo.util.errors import ZooError

_AT_ONCE = 16  # models that are read at once from a server: reading is waiting


def plan_farm(
    repository: Repository,
    request: Request,
    places: Callable[[Sequence[ModelIndex]], Places] | None = None,
    broken: Mapping[str, ZooError] | None = None,
) -> FarmPlan:
    """Says what a run would do.

    Args:
        repository: What is there.
        request: What is wanted.
        places: From what is published to what builds for each architecture, where that is not
            what the request says.
        broken: What is wrong with the manifests that can't be read.

    Raises:
        ZooError: The repository can't be read, or nothing builds for what is asked for.
    """
    with ThreadPoolExecutor(1 if repository.store.local_path("x") else _AT_ONCE) as pool:
        names = _listed(repository)
        asked = [name for name in request.manifests if name in names]
        found = {model.model: model for model in pool.map(repository.model_index, asked) if model}
        if places is not None:
            request = replace(request, places=places(list(found.values())))
        failures, history = Failures(repository), History()
        known = {
            name: RepositoryKnown(repository, name, found.get(name), failures)
            for name in request.manifests
        }
        for model in found.values():
            history.add(model)
        decisions = [
            decision
            for decided in pool.map(
                lambda manifest: decide(manifest, request, known[manifest.id]),
                request.manifests.values(),
            )
            for decision in decided
        ]
    for one in known.values():
        for export in one.exports_read:
            history.add_export(export)
    decisions += [_broken(name, error) for name, error in (broken or {}).items()]
    engines = [planned(decision, _expected(decision, history)) for decision in decisions]
    exports = {
        (decision.model, decision.form.dialect)
        for decision in decisions
        if decision.action is Action.EXPORT and decision.form is not None
    }
    seconds = sum(history.of_export(model, dialect) for model, dialect in sorted(exports))
    return make_plan(repository.store.url, engines, seconds, request.places.notes)


def _broken(name: str, error: ZooError) -> Decision:
    """Returns the decision on a manifest that can't be read."""
    return Decision(
        model=name, wanted=None, action=Action.BLOCKED, cause=Cause.MODEL_ERROR, text=str(error),
        error=error,
    )  # fmt: skip


def _listed(repository: Repository) -> set[str]:
    index = repository.index()
    return {row.model for row in index.models} if index else set()


def _expected(decision: Decision, history: History) -> Expected:
    """Returns what an engine is expected to take."""
    if decision.wanted is None or decision.action is Action.NOTHING:
        return Expected()
    return history.of(decision.model, decision.wanted.label)
