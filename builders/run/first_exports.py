"""Makes the exports that engines wait for, several at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from builders.executors import Executor
from builders.history.failures import Failures
from builders.planning.decide import Decider
from builders.planning.decision import Action, Cause, Decision
from builders.planning.known import RepositoryKnown
from builders.planning.request import Request
from builders.recipe.export_form import Form
from builders.run import parallel
from builders.run.exports import Exports
from builders.run.job_runner import JobRunner
from zoo.repository.repository import Repository
from zoo.schema.index import ModelIndex
from zoo.schema.manifest import Manifest
from zoo.util.errors import ClusterError, ZooError

_GROUP = 16
"""Models of a group, for each export that may run at once.

At the end of a group some exports wait for the longest. All models in one group would wait the
least, but nothing would be published until the last of them is exported.
"""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What became of the exports of a model.

    Attributes:
        made: Whether any were made.
        error: Why not.
    """

    made: bool = False
    error: ZooError | None = None


class FirstExports:
    """Makes the exports that a model's engines wait for.

    Args:
        repository: Where they are stored.
        executor: Says how many may run at once.
        jobs: Runs jobs.
        failures: The failure records.
    """

    def __init__(
        self, repository: Repository, executor: Executor, jobs: JobRunner, failures: Failures
    ) -> None:
        self._repository = repository
        self._executor = executor
        self._jobs = jobs
        self._failures = failures

    def groups(self, request: Request) -> Iterator[Sequence[Manifest]]:
        """Yields the models of a request in groups.

        Engines of a group are built when all its exports have ended: nothing may run beside an
        engine that is measured.
        """
        manifests, at_once = list(request.manifests.values()), self._executor.exports_at_once
        size = _GROUP * at_once if at_once > 1 else max(1, len(manifests))
        for first in range(0, len(manifests), size):
            yield manifests[first : first + size]

    def ahead(
        self, group: Sequence[Manifest], request: Request, listed: Collection[str]
    ) -> dict[str, Exported]:
        """Makes the exports of a group of models if several may run at once.

        Args:
            group: The models.
            request: The request.
            listed: Ids of the models of the index.

        Returns:
            What became of them by model; empty if each model makes its own when it has its turn.

        Raises:
            ClusterError: No job can run any more.
        """
        at_once = min(len(group), self._executor.exports_at_once)
        if at_once <= 1:
            return {}

        def export(manifest: Manifest) -> Exported:
            return self._export(manifest, request, is_listed=manifest.id in listed)

        made = parallel.each(export, group, at_once, self._executor.stop)
        return {manifest.id: exported for manifest, exported in zip(group, made, strict=True)}

    def _export(self, manifest: Manifest, request: Request, *, is_listed: bool) -> Exported:
        try:
            _, _, decider = self.look(manifest, request, is_listed=is_listed)
            decisions = decider.decide()
            if any(decision.cause is Cause.MODEL_ERROR for decision in decisions):
                return Exported()  # said when the model has its turn
            if forms := first_exports(decisions):
                self.exports(manifest, request, decider).make(forms)
            return Exported(made=bool(forms))
        except ClusterError:
            raise
        except ZooError as error:
            return Exported(error=error)

    def look(
        self, manifest: Manifest, request: Request, *, is_listed: bool
    ) -> tuple[ModelIndex | None, RepositoryKnown, Decider]:
        """Returns a model's published index, what the repository has of it, and what decides."""
        index = self._repository.model_index(manifest.id) if is_listed else None
        known = RepositoryKnown(
            self._repository, manifest.id, index, self._failures, looks_at_blobs=True
        )
        return index, known, Decider(manifest, request, known)

    def exports(self, manifest: Manifest, request: Request, decider: Decider) -> Exports:
        """Returns the exports of a model."""
        return Exports(
            self._repository, manifest, decider.inputs.identity, request,
            partial(self._jobs.job, manifest.id, failures=request.failures),
        )  # fmt: skip


def first_exports(decisions: Iterable[Decision]) -> list[Form]:
    """Returns the first export of each precision that is missing; all engines wait for them."""
    return [
        decision.form
        for decision in decisions
        if decision.action is Action.EXPORT and decision.cause is not Cause.MISSED
        if decision.form is not None
    ]
