"""A decision: what is done for one engine, why, and what that is known from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from builders.history.failures import Failed
from builders.jobs.messages import Prove
from builders.planning.wanted import Wanted
from builders.recipe.export_form import Form
from zoo.catalog.report import Change
from zoo.schema.closed import complete
from zoo.schema.floors import Tolerance
from zoo.schema.index import EngineEntry
from zoo.schema.keys import BuildInputs
from zoo.schema.records import Attestation, BuildRecord, ExportRecord, FailureRecord
from zoo.schema.targets import EngineName, Label
from zoo.util.errors import ZooError
from zoo.util.strenum import StrEnum


class Action(StrEnum):
    """What is done for an engine."""

    NOTHING = "nothing"
    SIGN = "sign"
    VERIFY = "verify"
    BUILD = "build"
    EXPORT = "export"
    DISABLED = "disabled"
    WITHDRAWN = "withdrawn"
    BLOCKED = "blocked"


@dataclass(frozen=True, kw_only=True)
class ActionFacts:
    """What an action is.

    Attributes:
        title: What plans call it.
        works: Whether it changes a repository.
    """

    title: str
    works: bool = False


ACTION_FACTS = complete(
    Action,
    {
        Action.NOTHING: ActionFacts(title="published"),
        Action.SIGN: ActionFacts(title="built, not signed", works=True),
        Action.VERIFY: ActionFacts(title="to verify", works=True),
        Action.BUILD: ActionFacts(title="to build", works=True),
        Action.EXPORT: ActionFacts(title="to export first", works=True),
        Action.DISABLED: ActionFacts(title="disabled"),
        Action.WITHDRAWN: ActionFacts(title="withdrawn"),
        Action.BLOCKED: ActionFacts(title="blocked"),
    },
)

WORK = tuple(action for action, facts in ACTION_FACTS.items() if facts.works)
"""Actions that change a repository."""


class Cause(StrEnum):
    """Why that is done. Sentences are made from it where they are shown: :func:`why`."""

    PUBLISHED = "published"
    UNLISTED = "unlisted"
    NOT_RUN = "not run"
    PROOF_CHANGED = "proof changed"
    NOT_PROBED = "not probed"
    NEW = "new"
    KEYS_CHANGED = "keys changed"
    BUILD_KEY_CHANGED = "build key changed"
    EXPORT_KEY_CHANGED = "export key changed"
    RECORD_GONE = "record gone"
    EXPORT_GONE = "export gone"
    MISSED = "missed"
    RETRIED = "retried"
    EXPORT_MISSED = "export missed"
    ENGINE_MISSED = "engine missed"
    CRASHED = "crashed"
    TAKEN_BACK = "taken back"
    WITHDRAWN = "withdrawn"
    MODEL_ERROR = "model error"
    ENGINE_ERROR = "engine error"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is done for one engine, and why.

    Attributes:
        model: Its model.
        wanted: The engine; None where a manifest can't be read or asks for none.
        action: What is done.
        cause: Why.
        text: What a record or an error says about it, for people.
        changed: Fields of its keys that differ from those of what is published.
        perhaps: Whether it is only built if its ONNX comes out another.
        form: Of the ONNX that it is built from.
        export: That ONNX, None where it is not made yet.
        inputs: What it is built from, None where its ONNX is not made yet.
        record: Key of the build record that serves it.
        prove: How it is verified; None where it can't be run.
        error: What is in the way, where it is blocked.
        failed: The record of the failed export, where that disables it.
    """

    model: str
    wanted: Wanted | None
    action: Action
    cause: Cause
    text: str = ""
    changed: tuple[Change, ...] = ()
    perhaps: bool = False
    form: Form | None = None
    export: ExportRecord | None = None
    inputs: BuildInputs | None = None
    record: str | None = None
    prove: Prove | None = None
    error: ZooError | None = None
    failed: FailureRecord | None = None

    @property
    def label(self) -> str:
        """Model and engine, for people."""
        label = Label.read(self.wanted.label) if self.wanted else None
        return str(EngineName(self.model, label))


class Known(Protocol):
    """What a repository has of one model. Only read, and only when it is asked for."""

    def entries(self, key: str) -> Sequence[EngineEntry]:
        """Returns what the index says of a build record, superseded or not."""

    def published(self, label: str) -> EngineEntry | None:
        """Returns the current entry of a target, whatever its engine keeps in higher precision."""

    def stored(self, key: str) -> bool:
        """Whether there is a build record, listed in the index or not."""

    def lost(self, key: str) -> bool:
        """Whether the index lists a build record that is gone, where that is looked at."""

    def damaged(self, key: str) -> str | None:
        """Returns the digest of an engine that is missing, where that is looked at."""

    def record(self, key: str) -> BuildRecord | None:
        """Returns a build record."""

    def attestations(self, engine: str) -> list[Attestation]:
        """Returns what was attested about an engine, the oldest first."""

    def withdrawn(self) -> Collection[str]:
        """Returns the digests of all engines that may have been withdrawn at some time."""

    def is_new(self, engine: str) -> bool:
        """Whether this run attested something about an engine, which no index says yet."""

    def export(self, key: str) -> ExportRecord | FailureRecord | None:
        """Returns an export, or why there is none; None where it was not tried."""

    def missed(self, build: BuildInputs, tolerance: Tolerance) -> str | None:
        """Returns what an engine of these inputs missed of a tolerance; None where none did."""

    def failed(self, build: BuildInputs, tolerance: Tolerance) -> Failed | None:
        """Says why an engine of these inputs is not tried again; None where it is."""


def why(decision: Decision) -> str:
    """Says in a sentence why something is done, empty where it is published."""
    names = ", ".join(change.field for change in decision.changed[:3])
    more = f" and {len(decision.changed) - 3} more" if len(decision.changed) > 3 else ""
    changed = f"changed: {names}{more}" if decision.changed else "is not published"
    return _SENTENCES[decision.cause].format(changed=changed, text=decision.text)


_SENTENCES = complete(
    Cause,
    {
        Cause.PUBLISHED: "",
        Cause.UNLISTED: "it is built, and in no index yet",
        Cause.NOT_RUN: "it has not been run",
        Cause.PROOF_CHANGED: "what a proof asks for has changed",
        Cause.NOT_PROBED: "its verdict says nothing of the labelled photos",
        Cause.NEW: "nothing is published for it",
        Cause.KEYS_CHANGED: "its keys {changed}",
        Cause.BUILD_KEY_CHANGED: "its build key {changed}",
        Cause.EXPORT_KEY_CHANGED: "its export key {changed}",
        Cause.RECORD_GONE: "its record is gone",
        Cause.EXPORT_GONE: "the export of what is published is gone",
        Cause.MISSED: "an engine missed its floors",
        Cause.RETRIED: "it failed, and is tried again",
        Cause.EXPORT_MISSED: "{text}",
        Cause.ENGINE_MISSED: "{text}",
        Cause.CRASHED: "{text}",
        Cause.TAKEN_BACK: "{text}",
        Cause.WITHDRAWN: "{text}",
        Cause.MODEL_ERROR: "{text}",
        Cause.ENGINE_ERROR: "{text}",
    },
)
"""Why something is done, as plans say it; the text is that of a record or an error."""
