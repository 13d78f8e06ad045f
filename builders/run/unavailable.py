"""What a run states about engines that it does not give out."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from builders.planning.decision import Cause, Decision
from builders.planning.known import RepositoryKnown
from builders.publish.index import model_index, stands
from zoo.repository.repository import Repository
from zoo.schema.index import (
    Candidate,
    DisabledCell,
    EngineEntry,
    ModelCard,
    ModelIndex,
    OutdoneEngine,
)
from zoo.schema.records import FailureStage, Status
from zoo.schema.targets import EngineName, Label
from zoo.util.errors import VerificationError


def lost_by(
    decision: Decision, repository: Repository, known: RepositoryKnown, card: ModelCard
) -> str:
    """Returns what becomes of the verified engine that a failed export was to replace.

    Empty if none is published: that a precision is impossible for a model is no failure.
    """
    assert decision.wanted is not None
    cell = disabled_cell(decision)
    for target in decision.wanted.targets:
        entry = known.published(target.label.cell)
        if entry is None or entry.status is not Status.VERIFIED:
            continue
        assert isinstance(entry, EngineEntry)  # a run reads the whole index
        record = known.record(entry.record)
        if record is None or not stands(repository, card, entry, record, cell):
            return "the published engine does not meet the tolerance either and is removed"
        return f"the engine of {entry.created[:10]} stays published"
    return ""


def outdone_by(
    repository: Repository, candidate: Candidate, previous: ModelIndex | None
) -> dict[str, str]:
    """Returns the engines that a candidate does not put in place of what is published, and why.

    Args:
        repository: Where records and attestations are stored.
        candidate: The candidate.
        previous: The index of its model.
    """
    made = model_index(repository, candidate, previous, datetime.now(timezone.utc))
    return {
        str(EngineName(made.model, Label.joined(engine.targets))): engine.reason
        for engine in newly_outdone(previous, made)
    }


def newly_outdone(before: ModelIndex | None, after: ModelIndex) -> list[OutdoneEngine]:
    """Returns the engines that an index lists as outdone and the one before did not."""
    return [engine for engine in after.outdone if before is None or engine not in before.outdone]


def withdrawn(decision: Decision, failures: Path) -> VerificationError:
    """Returns the error of an engine that is withdrawn."""
    return VerificationError(
        f"withdrawn: {decision.text}",
        hint="after a new verification, this gives it out again: "
        f".venv/bin/zoo-farm reinstate {decision.label} --reason '...'; other inputs make another "
        "engine"
        if decision.cause is Cause.TAKEN_BACK
        else "found by an earlier run; the numbers are in the engine's attestations, and that "
        f"run's job and log in {failures}",
    )


def disabled_cell(decision: Decision, text: str = "") -> DisabledCell:
    """Returns the index entry of a disabled engine.

    Args:
        decision: The decision on it.
        text: The reason; by default the decision's.
    """
    assert decision.wanted is not None
    failed = decision.failed
    key = failed.inputs.key if failed else decision.inputs.key if decision.inputs else ""
    return DisabledCell(
        targets=tuple(map(str, decision.wanted.targets)),
        precision=decision.wanted.precision,
        reason=text or decision.text,
        record=key,
        stage=FailureStage.EXPORT if failed else FailureStage.BUILD,
    )
