"""A decision: what is done for an engine, why, and the records behind it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from builders.history.attested import NamedVerdict
from builders.history.failures import Failed
from builders.jobs.messages import VerificationSpec
from builders.planning.order import Build
from builders.planning.wanted import Wanted
from builders.recipe.export_form import Form
from zoo.catalog.report import Change
from zoo.schema.closed import complete
from zoo.schema.floors import Tolerance
from zoo.schema.index import OutdoneEngine
from zoo.schema.keys import BuildInputs
from zoo.schema.published import AnyEngine
from zoo.schema.records import Attestation, BuildRecord, ExportRecord, FailureRecord
from zoo.schema.targets import EngineName, Label
from zoo.util.errors import ZooError
from zoo.util.strenum import StrEnum


class Action(StrEnum):
    """The action for an engine."""

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
    """Facts about an action.

    Attributes:
        title: Its name in plans.
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
    """Why something is done; :func:`why` makes the sentence where it is shown."""

    PUBLISHED = "published"
    OUTDONE = "outdone"
    UNLISTED = "unlisted"
    NOT_RUN = "not run"
    VERIFICATION_CHANGED = "verification changed"
    NOT_PROBED = "not probed"
    NEW = "new"
    UNLOCKED = "unlocked"
    KEYS_CHANGED = "keys changed"
    BUILD_KEY_CHANGED = "build key changed"
    EXPORT_KEY_CHANGED = "export key changed"
    RECORD_GONE = "record gone"
    EXPORT_GONE = "export gone"
    MISSED = "missed"
    RETRIED = "retried"
    EXPORT_MISSED = "export missed"
    EXPORT_NOT_RETRIED = "export not retried"
    ENGINE_MISSED = "engine missed"
    CRASHED = "crashed"
    TAKEN_BACK = "taken back"
    WITHDRAWN = "withdrawn"
    MODEL_ERROR = "model error"
    ENGINE_ERROR = "engine error"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The action for one engine, and the reason.

    Attributes:
        model: The model.
        wanted: The engine; None if the manifest can't be read or asks for no engine.
        action: What is done.
        cause: Why.
        text: Details from a record or an error, for people.
        changed: Fields of its keys that differ from the published engine's.
        perhaps: Whether it is only built if its ONNX comes out different.
        contested: Whether it is another attempt at the published engine, which it replaces unless
            it is farther from PyTorch.
        form: The form of the ONNX that it is built from.
        export: That ONNX; None if it is not exported yet.
        build: Its build; None if its ONNX is not exported yet.
        record: Key of the build record that serves it.
        verification: How it is verified; None if it can't be run.
        error: Why it is blocked.
        failed: The record of the failed export that disables it.
    """

    model: str
    wanted: Wanted | None
    action: Action
    cause: Cause
    text: str = ""
    changed: tuple[Change, ...] = ()
    perhaps: bool = False
    contested: bool = False
    form: Form | None = None
    export: ExportRecord | None = None
    build: Build | None = None
    record: str | None = None
    verification: VerificationSpec | None = None
    error: ZooError | None = None
    failed: FailureRecord | None = None

    @property
    def inputs(self) -> BuildInputs | None:
        """The inputs of its build; None if its ONNX is not exported yet."""
        return self.build.inputs if self.build else None

    @property
    def label(self) -> str:
        """Model and engine, for people."""
        label = Label.read(self.wanted.label) if self.wanted else None
        return str(EngineName(self.model, label))


class Known(Protocol):
    """A repository's contents for one model, read on demand."""

    def entries(self, key: str) -> Sequence[AnyEngine]:
        """Returns the index entries of a build record, superseded or not."""

    def outdone(self, key: str) -> Sequence[OutdoneEngine]:
        """Returns what the index says of an engine that did not replace the published one."""

    def published(self, label: str) -> AnyEngine | None:
        """Returns the current entry of a target, whether its engine is mixed or not."""

    def given_out(self) -> Collection[str]:
        """Returns the digests of all listed engines that are not withdrawn."""

    def sharing(self) -> Mapping[str, int]:
        """Returns how many engines of other models are given out and are the bytes of one of these.

        By model.
        """

    def stored(self, key: str) -> bool:
        """Whether there is a build record, listed in the index or not."""

    def lost(self, key: str) -> bool:
        """Whether a build record that the index lists is gone; False if that is not checked."""

    def damaged(self, key: str) -> str | None:
        """Returns the digest of an engine whose file is gone; None if that is not checked."""

    def record(self, key: str) -> BuildRecord | None:
        """Returns a build record."""

    def attestations(self, engine: str) -> list[Attestation]:
        """Returns an engine's attestations, oldest first."""

    def withdrawn(self) -> Collection[str]:
        """Returns the digests of all engines that may have been withdrawn at some time."""

    def engine(self, key: str) -> str | None:
        """Returns the digest of a stored engine, None if its build record is gone."""

    def named_verdict(self, key: str, arch: str) -> NamedVerdict | None:
        """Returns the last verdict on an unlisted engine; None if only its attestations tell."""

    def is_new(self, engine: str) -> bool:
        """Whether this run attested something about an engine that no index states yet."""

    def export(self, key: str) -> ExportRecord | FailureRecord | None:
        """Returns an export or the record of its failure; None if it was not tried."""

    def missed(self, build: BuildInputs, tolerance: Tolerance) -> str | None:
        """Returns by what an engine of these inputs missed a tolerance; None if it did not."""

    def failed(self, build: BuildInputs, tolerance: Tolerance) -> Failed | None:
        """Returns why an engine of these inputs is not tried again; None if it is."""


def why(decision: Decision) -> str:
    """Returns a sentence that says why something is done; empty if nothing is."""
    names = ", ".join(change.field for change in decision.changed[:3])
    more = f" and {len(decision.changed) - 3} more" if len(decision.changed) > 3 else ""
    changed = f"changed: {names}{more}" if decision.changed else "is not published"
    sentence = _SENTENCES[decision.cause].format(changed=changed, text=decision.text)
    return f"{sentence}; {_CONTESTED}" if decision.contested else sentence


_CONTESTED = "what is published stays if this is farther from PyTorch"


_SENTENCES = complete(
    Cause,
    {
        Cause.PUBLISHED: "",
        Cause.OUTDONE: "{text}",
        Cause.UNLISTED: "it is built, but in no index yet",
        Cause.NOT_RUN: "it has not been run",
        Cause.VERIFICATION_CHANGED: "the inputs of its verification changed",
        Cause.NOT_PROBED: "it was not verified on these labelled photos",
        Cause.NEW: "nothing is published for it",
        Cause.UNLOCKED: "its weights are not locked yet: make zoo locks them first",
        Cause.KEYS_CHANGED: "its keys {changed}",
        Cause.BUILD_KEY_CHANGED: "its build key {changed}",
        Cause.EXPORT_KEY_CHANGED: "its export key {changed}",
        Cause.RECORD_GONE: "its record is gone",
        Cause.EXPORT_GONE: "the export of what is published is gone",
        Cause.MISSED: "an engine missed its tolerance",
        Cause.RETRIED: "it failed and is tried again",
        Cause.EXPORT_MISSED: "{text}",
        Cause.EXPORT_NOT_RETRIED: "{text}; it is not retried, because an export of the same inputs "
        "is the same: change them, for example the calibration photos",
        Cause.ENGINE_MISSED: "{text}",
        Cause.CRASHED: "{text}",
        Cause.TAKEN_BACK: "{text}",
        Cause.WITHDRAWN: "{text}",
        Cause.MODEL_ERROR: "{text}",
        Cause.ENGINE_ERROR: "{text}",
    },
)
"""The sentences of plans; ``text`` comes from a record or an error."""
