"""Plans a run: decides for every engine that a request wants. Nothing is done or written.

Reads the index, one file per model, and the exports; a build record is read only if its engine
would be built again, to say why. Blobs are not checked: ``zoo-farm check`` does that.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from builders.history.durations import Expected, History
from builders.history.failures import Failures
from builders.planning.decide import decide
from builders.planning.decision import Action, Cause, Decision
from builders.planning.known import RepositoryKnown
from builders.planning.report import TIMED, FarmPlan, make_plan, planned
from builders.planning.request import Request
from builders.weights.locks import NAME
from builders.weights.mode import MODE_FACTS
from zoo.repository.published import published_model
from zoo.repository.repository import Repository
from zoo.schema.manifest import DigestFrom, HubWeights, Manifest
from zoo.schema.published import AnyModel
from zoo.util.errors import ZooError
from zoo.util.names import counted

T = TypeVar("T")
R = TypeVar("R")

_NO_TIME = Expected()

_AT_ONCE = 16  # models read from a server at the same time


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pauses the garbage collector.

    Nearly all that a plan makes is kept, and each collection would visit all of it: time would grow
    faster than the number of targets.
    """
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


@_uncollected()
def plan_farm(
    repository: Repository,
    request: Request,
    broken: Mapping[str, ZooError] | None = None,
    published: Mapping[str, AnyModel] | None = None,
) -> FarmPlan:
    """Returns what a run would do.

    Args:
        repository: The repository.
        request: The request.
        broken: The errors of manifests that can't be read.
        published: The models' indexes, if they were read already.

    Raises:
        ZooError: The repository can't be read, or no toolchain builds for a requested target.
    """
    if published is None:
        published = read_published(repository, request.manifests)
    failures = Failures(repository)
    known = {
        name: RepositoryKnown(repository, name, published.get(name), failures)
        for name in request.manifests
    }
    decided = _each(
        repository,
        lambda manifest: decide(manifest, request, known[manifest.id]),
        [*request.manifests.values()],
    )
    decisions = [decision for of_model in decided for decision in of_model]
    history = History()
    if any(decision.action in TIMED for decision in decisions):
        _remember(history, published.values(), known.values())
    decisions += [_broken(name, error) for name, error in (broken or {}).items()]
    engines = [planned(decision, _expected(decision, history)) for decision in decisions]
    exports = {
        (decision.model, decision.form.dialect)
        for decision in decisions
        if decision.action is Action.EXPORT and decision.form is not None
    }
    seconds = sum(history.of_export(model, dialect) for model, dialect in sorted(exports))
    corrections = [
        note
        for name, index in published.items()
        for note in _corrections(request.manifests[name], index)
    ]
    notes = (*request.places.notes, *corrections, *_weights_notes(request))
    return make_plan(repository.store.url, engines, seconds, notes)


def _remember(
    history: History, published: Iterable[AnyModel], known: Iterable[RepositoryKnown]
) -> None:
    """Adds what engines and exports cost so far."""
    for model in published:
        history.add(model)
    for of_model in known:
        for export in of_model.exports_read:
            history.add_export(export)


def _corrections(manifest: Manifest, index: AnyModel) -> Iterator[str]:
    """Yields a sentence for each fact that the index states and the manifest has corrected."""
    now = {
        "licence": manifest.licence,
        "origin": manifest.origin,
        "title": manifest.catalog.title,
    }
    for fact, before in index.facts.items():
        if now[fact] != before:
            yield (
                f"{manifest.id}: the index will say the {fact} '{now[fact]}' instead of "
                f"'{before}'; nothing is built for it"
            )


def _weights_notes(request: Request) -> Iterator[str]:
    """Yields a sentence on weights that are not locked, and one on hashes to be confirmed."""
    if MODE_FACTS[request.weights].kind.seeded:
        return
    of_hub = {
        name: manifest.weights
        for name, manifest in request.manifests.items()
        if isinstance(manifest.weights, HubWeights)
    }
    if unlocked := [name for name, weights in of_hub.items() if not weights.pinned]:
        what = (
            f"make zoo asks the hub for their revision, hash and size, and writes {NAME}"
            if request.locks_first
            else f"they are refused; with network: make lock, then review and commit {NAME}"
        )
        models = f"{counted(len(unlocked), 'model')} are not locked ({', '.join(unlocked)})"
        yield f"the weights of {models}: {what}"
    unconfirmed = [
        name for name, weights in of_hub.items() if weights.digest_from is DigestFrom.PUBLIC_FILE
    ]
    if unconfirmed:
        yield (
            f"the weights of {counted(len(unconfirmed), 'model')} have a hash that a single public "
            f"file records ({', '.join(unconfirmed)}): a download with another hash is refused"
        )


def _broken(name: str, error: ZooError) -> Decision:
    """Returns the decision on a manifest that can't be read."""
    return Decision(
        model=name, wanted=None, action=Action.BLOCKED, cause=Cause.MODEL_ERROR, text=str(error),
        error=error,
    )  # fmt: skip


@_uncollected()
def read_published(repository: Repository, models: Iterable[str]) -> dict[str, AnyModel]:
    """Returns the indexes of those models of which something is published.

    Raises:
        ZooError: The repository can't be read.
    """
    index = repository.index()
    rows = {row.model: row for row in index.models} if index else {}
    listed = [rows[name] for name in models if name in rows]
    read = _each(repository, partial(published_model, repository), listed)
    return {model.model: model for model in read if model}


def _each(repository: Repository, read: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Calls a function that reads a repository with each item; in threads if that is a server."""
    at_once = 1 if repository.store.local_path("x") else min(_AT_ONCE, len(items))
    if at_once <= 1:
        return [read(item) for item in items]
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(read, items))


def _expected(decision: Decision, history: History) -> Expected:
    """Returns the estimate for an engine."""
    if decision.wanted is None or decision.action not in TIMED:
        return _NO_TIME
    return history.of(decision.model, decision.wanted.label)
