"""Carries out the decisions on a model's engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from typing_extensions import assert_never

from builders.history.failures import Failures
from builders.jobs.progress import Display
from builders.planning import wanted
from builders.planning.decide import Decider
from builders.planning.decision import Action, Cause, Decision, why
from builders.planning.known import RepositoryKnown
from builders.planning.request import Request
from builders.planning.serving import current_labels, is_current
from builders.publish import records
from builders.publish.index import model_card
from builders.run.engine_jobs import EngineJobs
from builders.run.exports import Exports
from builders.run.summary import Summary
from builders.run.unavailable import disabled_cell, lost_by, withdrawn
from zoo.repository.repository import Repository
from zoo.schema.index import DisabledCell
from zoo.schema.manifest import Manifest
from zoo.schema.records import FailureReason, FailureStage, Status
from zoo.util.errors import (
    ClusterError,
    JobError,
    MissError,
    NotRunError,
    QuarantineError,
    VerificationError,
    ZooError,
)

_AFTER_A_MISS = (
    "later runs do not try these inputs again and list the precision as disabled; change the "
    "inputs, or undo the last change"
)


@dataclass
class EngineRun:
    """Carries out the decisions on a model's engines; safe to use from several threads.

    Attributes:
        repository: Where engines are published.
        jobs: Builds and verifies engines.
        display: Shows progress.
        failures: Records failures.
        manifest: The model.
        request: The request.
        decider: Decides again after something was done for an engine.
        known: The repository's contents for the model; notified of changes.
        exports: Makes the model's exports.
        summary: Collects the outcome of each engine.
        cells: Index entries of disabled engines.
    """

    repository: Repository
    jobs: EngineJobs
    display: Display
    failures: Failures
    manifest: Manifest
    request: Request
    decider: Decider
    known: RepositoryKnown
    exports: Exports
    summary: Summary
    cells: list[DisabledCell] = field(default_factory=list)

    def bring(self, decision: Decision) -> str | None:
        """Carries out a decision and those that follow from it.

        Returns:
            Key of the build record to propose for the engine's targets; None if the index stays as
            it is.
        """
        try:
            return self._bring(decision)
        except ClusterError:
            raise
        except ZooError as error:
            self.summary.failed[decision.label] = error
            return None

    def _bring(self, decision: Decision) -> str | None:
        assert decision.wanted is not None
        plain = decision.wanted
        is_new = decision.action is Action.EXPORT
        if is_new:
            decision = self._export(decision)
        match decision.action:
            case Action.NOTHING | Action.SIGN:
                return self._current(decision)
            case Action.BUILD:
                return self._try(decision, plain, self.jobs.build, "published")
            case Action.VERIFY:
                return self._try(decision, plain, self.jobs.verify, "verified")
            case Action.DISABLED if is_new and (lost := self._lost(decision)):
                self.cells.append(disabled_cell(decision))
                raise MissError(f"{decision.text}; {lost}", hint=_AFTER_A_MISS)
            case Action.DISABLED:
                self._disable(decision)
                return None
            case Action.WITHDRAWN:
                self.summary.failed[decision.label] = withdrawn(decision, self.request.failures)
                return None
            case Action.BLOCKED | Action.EXPORT:
                self.summary.failed[decision.label] = decision.error or JobError(
                    f"{decision.label}: its export was made but is missing"
                )
                return None
            case never:
                assert_never(never)

    def _lost(self, decision: Decision) -> str:
        card = model_card(self.manifest, self.decider.inputs.identity)
        return lost_by(decision, self.repository, self.known, card)

    def _export(self, decision: Decision) -> Decision:
        """Makes missing exports; returns the decision that follows."""
        while decision.action is Action.EXPORT:
            assert decision.wanted is not None
            assert decision.form is not None
            key = self.decider.inputs.export(decision.form)[0]
            _ = self.exports[decision.form]
            self.known.exported(key)
            after = self.decider.engine(decision.wanted)
            if after.form == decision.form and after.action is Action.EXPORT:
                break
            decision = after
        return decision

    def _current(self, decision: Decision) -> str | None:
        """Notes an engine that needs no work."""
        self.summary.current.append(decision.label)
        assert decision.record is not None
        if decision.action is Action.SIGN:
            record = self.known.record(decision.record)
            if record is not None and not self.known.attestations(record.engine.sha256):
                file = self.repository.record_file(self.manifest.id, record.key).sha256
                records.attest_pending(
                    self.repository, record.engine.sha256, record.key, None, file=file
                )
            return decision.record
        return decision.record if self._is_all_current(decision.record) else None

    def _is_all_current(self, key: str) -> bool:
        """Whether an engine is current for all targets that it serves.

        If a newer engine replaced it for some of them, it is not proposed: it would replace that
        engine in turn.
        """
        record = self.known.record(key)
        return record is not None and set(record.targets) <= current_labels(key, self.known)

    def _try(
        self,
        decision: Decision,
        plain: wanted.Wanted,
        work: Callable[[Decision], str],
        done: str,
    ) -> str | None:
        """Builds or verifies an engine; if that fails, carries out the decision that follows."""
        try:
            key: str | None = work(decision)
        except NotRunError:
            raise  # not the engine's fault
        except (JobError, VerificationError) as error:
            return self._after(decision, plain, error)
        getattr(self.summary, done).append(decision.label)
        stays = decision.action is Action.BUILD and _is_compared(decision, self.known)
        self.display.say(f"{decision.label}: {'built and verified' if stays else done}")
        if done == "verified" and key is not None and not self._is_all_current(key):
            assert decision.wanted is not None
            listed = is_current(decision.wanted, key, self.known)
            return key if decision.cause is Cause.UNLISTED or not listed else None
        return key

    def _after(
        self, decision: Decision, plain: wanted.Wanted, error: JobError | VerificationError
    ) -> str | None:
        """Records a failure and carries out the decision that follows.

        Raises:
            ZooError: Nothing else is tried.
        """
        assert decision.wanted is not None
        assert decision.inputs is not None
        missed = isinstance(error, MissError)
        if decision.action is Action.BUILD or missed:
            record = self.known.record(decision.record) if decision.record else None
            self.failures.add(
                record.inputs if record else decision.inputs,
                self.decider.inputs.tolerance(decision.wanted),
                error.message,
                stage=FailureStage(decision.action.value),
                reason=FailureReason.TOLERANCE if missed else FailureReason.CRASHED,
                weights=self.decider.inputs.identity,
                quarantined=isinstance(error, QuarantineError),
                targets=map(str, decision.wanted.targets),
            )
        after = self.decider.engine(plain)
        if after.form != decision.form and after.action in (Action.EXPORT, Action.BUILD):
            self.display.say(f"{decision.label}: {error.message}; trying a stricter one")
            after = self._export(after)
        if after.form != decision.form and after.action is not Action.DISABLED:
            return self._bring(after)
        if decision.action is Action.BUILD and after.action is Action.DISABLED:
            if not missed:
                if error.command:
                    self.summary.commands[after.label] = error.command
                self._disable(after)
                return None
            self.cells.append(disabled_cell(after))
        elif decision.action is Action.BUILD and missed:  # a retry, which missed again
            self.cells.append(disabled_cell(decision, f"missed its tolerance, {error.message}"))
        if missed:
            raise self._miss(decision, plain, error)
        raise error

    def _miss(
        self, decision: Decision, plain: wanted.Wanted, error: JobError | VerificationError
    ) -> MissError:
        """Returns the error of an engine that missed and has no stricter network to try."""
        hint = error.hint
        if decision.action is Action.BUILD:
            hint = f"disabled until RETRY=1 or the inputs change; {hint}"
        miss = MissError(f"{error.message}{self.decider.nothing_stricter(plain)}", hint=hint)
        miss.command = error.command
        return miss

    def _disable(self, decision: Decision) -> None:
        """Notes an engine that is disabled."""
        self.summary.disabled[decision.label] = why(decision)
        self.summary.causes[decision.label] = decision.cause
        self.cells.append(disabled_cell(decision))


def _is_compared(decision: Decision, known: RepositoryKnown) -> bool:
    """Whether an engine that was built may be outdone by a verified one that is published."""
    assert decision.wanted is not None
    published = (known.published(target.label.cell) for target in decision.wanted.targets)
    return decision.verification is not None and any(
        entry is not None and entry.status is Status.VERIFIED for entry in published
    )
