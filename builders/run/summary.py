"""The outcome of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builders.planning.decision import Cause
from zoo.util.errors import LicenceError, ZooError


@dataclass
class Summary:
    """The outcome of a run, printed at its end.

    Attributes:
        published: Labels of engines that were built and published.
        verified: Labels of engines that were verified without a build.
        current: Labels of engines that needed nothing.
        outdone: From label to reason, of engines that were verified and are not given out, because
            the published one is closer to PyTorch.
        disabled: From label to reason, of disabled engines.
        causes: From label to cause of the decision, of disabled engines.
        failed: From label to error.
        withheld: From model to the error of a licence that does not allow publishing its engines,
            of which none were given out before this run.
        changes: Sentences on what the index says differently without a build.
        exported: Models that were exported, from weights that had the locked hash.
        commands: From label to the command that reproduces the failure that disabled the engine in
            this run.
    """

    published: list[str] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    current: list[str] = field(default_factory=list)
    outdone: dict[str, str] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)
    causes: dict[str, Cause] = field(default_factory=dict)
    failed: dict[str, ZooError] = field(default_factory=dict)
    withheld: dict[str, LicenceError] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    exported: list[str] = field(default_factory=list)
    commands: dict[str, str] = field(default_factory=dict)

    def add(self, part: Summary) -> None:
        """Adds the outcome of a model."""
        self.published += part.published
        self.verified += part.verified
        self.current += part.current
        self.outdone |= part.outdone
        self.disabled |= part.disabled
        self.causes |= part.causes
        self.failed |= part.failed
        self.withheld |= part.withheld
        self.changes += part.changes
        self.exported += part.exported
        self.commands |= part.commands

    def outdo(self, engines: Mapping[str, str]) -> None:
        """Notes engines that were proposed, and that the published ones outdo.

        Args:
            engines: From label to reason.
        """
        self.outdone |= engines
        self.published = [label for label in self.published if label not in engines]
        self.verified = [label for label in self.verified if label not in engines]
        self.current = [label for label in self.current if label not in engines]

    @property
    def reported(self) -> list[str]:
        """Labels of engines whose outcome is reported, other than those that needed nothing."""
        return [*self.published, *self.verified, *self.outdone, *self.disabled, *self.failed]

    @property
    def is_nothing_else(self) -> bool:
        """Whether nothing was asked for but models that are withheld."""
        return not (self.reported or self.current or self.changes)

    @property
    def of_engines(self) -> list[str]:
        """Labels of engines that are disabled because of a build, not an export."""
        return [
            label
            for label in self.disabled
            if self.causes.get(label) in (Cause.ENGINE_MISSED, Cause.CRASHED)
        ]
