"""Summary: what a run did."""

from __future__ import annotations

from dataclasses import dataclass, field

from builders.planning.decision import Cause
from zoo.util.errors import ZooError


@dataclass
class Summary:
    """What a run did, for the last lines that it prints.

    Attributes:
        published: Labels of engines that were built and published.
        verified: Labels of engines that were only verified again.
        current: Labels of engines that needed nothing.
        disabled: Label to the reason why there is no such engine.
        causes: Label to the cause of the decision, of those that are disabled.
        failed: Label to cause.
        commands: Label to what reproduces a failure that disabled it in this run.
    """

    published: list[str] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    current: list[str] = field(default_factory=list)
    disabled: dict[str, str] = field(default_factory=dict)
    causes: dict[str, Cause] = field(default_factory=dict)
    failed: dict[str, ZooError] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)

    def add(self, part: Summary) -> None:
        """Takes in what was done for one model."""
        self.published += part.published
        self.verified += part.verified
        self.current += part.current
        self.disabled |= part.disabled
        self.causes |= part.causes
        self.failed |= part.failed
        self.commands |= part.commands

    @property
    def of_engines(self) -> list[str]:
        """Labels of those that are disabled for what their engine did, not their export."""
        return [
            label
            for label in self.disabled
            if self.causes.get(label) in (Cause.ENGINE_MISSED, Cause.CRASHED)
        ]
