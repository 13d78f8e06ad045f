"""Carries out the decisions for each model. Nothing is decided here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from builders.executors import Executor
from builders.history.failures import Failures
from builders.jobs.progress import Display
from builders.planning.decision import Cause
from builders.planning.request import Request
from builders.publish import index as listing
from builders.publish.by_hand import have_signed
from builders.publish.candidates import Proposals
from builders.publish.changes import changes, other_status
from builders.publish.provenance import manifest_source
from builders.publish.records import withdrawal
from builders.run import parallel
from builders.run.engine_jobs import EngineJobs
from builders.run.engines import EngineRun
from builders.run.first_exports import Exported, FirstExports, first_exports
from builders.run.job_runner import JobRunner
from builders.run.linear_probe import Probing
from builders.run.summary import Summary
from builders.run.unavailable import outdone_by
from builders.weights.mode import MODE_FACTS
from zoo.repository.repository import Repository
from zoo.schema.index import Candidate, ModelIndex
from zoo.schema.manifest import Manifest
from zoo.schema.records import Status
from zoo.schema.status import taken_back
from zoo.util.errors import ClusterError, LicenceError, ZooError

T = TypeVar("T")
R = TypeVar("R")


class Farm:
    """Makes a repository fulfil a request, running as many jobs at once as the executor has slots.

    Args:
        repository: Where engines are published.
        executor: What runs jobs.
        display: Shows progress.
        proposals: Takes candidates for the index.
        failures: The failure records; None for a run that is not nightly.
    """

    def __init__(
        self,
        repository: Repository,
        executor: Executor,
        display: Display,
        proposals: Proposals,
        failures: Failures | None = None,
    ) -> None:
        self._repository = repository
        self._executor = executor
        self._display = display
        self._proposals = proposals
        self._failures = failures or Failures(repository)
        self._jobs = JobRunner(repository, executor, display)
        self._first = FirstExports(repository, executor, self._jobs, self._failures)
        self._signing = threading.Lock()

    def run(self, request: Request) -> Summary:
        """Runs a request. A model that fails does not stop the others.

        Raises:
            ClusterError: No job can run any more.
        """
        self._repository.claim(MODE_FACTS[request.weights].kind)
        probing = Probing(
            request.labelled, request.failures / "labelled", request.manifest_dir,
            partial(self._jobs.job, failures=request.failures), self._repository.store.url,
        )  # fmt: skip
        index = self._repository.index()
        listed = {row.model for row in index.models} if index else set()

        def run_model(manifest: Manifest) -> Summary:
            summary = Summary()
            try:
                if (exported := ahead.get(manifest.id, Exported())).error is not None:
                    raise exported.error
                if exported.made:
                    summary.exported.append(manifest.id)
                with self._executor.working():
                    self._run_model(manifest, request, probing, manifest.id in listed, summary)
            except ClusterError:
                raise
            except ZooError as error:
                if isinstance(error, LicenceError) and manifest.id not in listed:
                    summary.withheld[manifest.id] = error  # as the manifest says: no failure
                else:
                    summary.failed[manifest.id] = error
            return summary

        whole = Summary()
        try:
            for group in self._first.groups(request):
                ahead = self._first.ahead(group, request, listed)
                at_once = self._executor.models_at_once
                for part in parallel.each(run_model, group, at_once, self._executor.stop):
                    whole.add(part)
        finally:
            probing.close()
        return whole

    def _each(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        return parallel.each(function, items, self._executor.slots, self._executor.stop)

    def _run_model(
        self,
        manifest: Manifest,
        request: Request,
        probing: Probing,
        is_listed: bool,
        summary: Summary,
    ) -> None:
        """Carries out the decisions for a model, and proposes the outcome for the index."""
        index, known, decider = self._first.look(manifest, request, is_listed=is_listed)
        decisions = decider.decide()
        for decision in decisions:
            if decision.cause is Cause.MODEL_ERROR and decision.error is not None:
                if isinstance(decision.error, LicenceError) and index is not None:
                    self._withdraw(index, decision.error, manifest, request)
                    if not known.given_out():
                        summary.withheld[manifest.id] = _still_withdrawn(decision.error)
                        return
                raise decision.error
        exports = self._first.exports(manifest, request, decider)
        if first := first_exports(decisions):
            exports.make(first)
            summary.exported.append(manifest.id)
            for form in first:
                known.exported(decider.inputs.export(form)[0])
        jobs = EngineJobs(
            repository=self._repository, jobs=self._jobs, manifest=manifest, request=request,
            known=known, probing=probing,
        )  # fmt: skip
        engines = EngineRun(
            self._repository, jobs, self._display, self._failures, manifest, request,
            decider, known, exports, summary,
        )  # fmt: skip
        records = [key for key in self._each(engines.bring, decisions) if key is not None]
        candidate = Candidate(
            card=listing.model_card(manifest, decider.inputs.identity),
            weights=decider.inputs.identity,
            backbone=manifest.backbone,
            records=tuple(dict.fromkeys(records)),
            disabled=tuple(sorted(engines.cells, key=lambda cell: cell.targets)),
            source=manifest_source(request.manifest_dir, manifest.id),
        )
        if records:
            summary.outdo(outdone_by(self._repository, candidate, index))
        with self._signing:
            made = self._proposals.send(candidate)
            if index is None or made is None:
                return
            summary.changes += changes(index, made, summary.reported)
            digests = {entry.engine.sha256 for entry, _ in other_status(index, made)}
            for other in self._proposals.send_sharing(digests, made.model) if digests else ():
                said = f"{other}: its engine has the same bytes and the same status"
                summary.changes.append(said)

    def _withdraw(
        self, index: ModelIndex, error: LicenceError, manifest: Manifest, request: Request
    ) -> None:
        """Withdraws all engines of a model whose licence no longer allows publishing them.

        The index then states that licence.
        """
        engines = [entry for entry in index.engines if entry.status is not Status.WITHDRAWN]
        digests = dict.fromkeys(entry.engine.sha256 for entry in engines)
        decisions = [
            withdrawal(engine, error.message)
            for engine in digests
            if taken_back(self._repository.attestations(engine)) is None  # waits for a signature
        ]
        candidate = Candidate(
            card=listing.corrected(index.card, manifest),
            source=manifest_source(request.manifest_dir, manifest.id),
        )
        with self._signing:
            for other in have_signed(self._repository, self._proposals, candidate, decisions):
                self._display.say(f"{other}: its engines have the same bytes and are withdrawn too")


def _still_withdrawn(error: LicenceError) -> LicenceError:
    """Returns the error of a licence for which an earlier run withdrew all engines."""
    return LicenceError(f"{error.message}; all its engines are withdrawn", hint=error.hint)
