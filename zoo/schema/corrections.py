"""Corrected facts about a model: what was stated, what is stated since, and who said so."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, StringConstraints

from zoo.schema.omitted import OmitsDefaults
from zoo.util.digest import Sha256

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40,64}$")]
"""The hash of a git commit."""


class ManifestSource(OmitsDefaults):
    """The manifest that a builder read, as far as it knows; its word, which nobody checks.

    Attributes:
        sha256: Digest of the file.
        commit: Commit of the checkout that holds it; None if it is in none.
        changed: Whether the file differs from that commit.
    """

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)
    omitted: ClassVar[frozenset[str]] = frozenset({"commit", "changed"})

    sha256: Sha256
    commit: Commit | None = None
    changed: bool = False

    def __str__(self) -> str:
        if self.commit is None:
            return f"manifest {self.sha256[:16]}"
        changed = f", locally changed to {self.sha256[:16]}" if self.changed else ""
        return f"commit {self.commit[:16]}{changed}"


class FactChange(OmitsDefaults):
    """A corrected fact about a model that is no input of its engines.

    Attributes:
        fact: ``licence``, ``origin`` or ``title``.
        before: What was stated.
        after: What is stated since.
        time: When it was published, ISO 8601 in UTC.
        source: The manifest that states it, according to the builder; None if it did not say.
        signer: Id of the key that signed the correction; None in indexes of earlier versions.
    """

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)
    omitted: ClassVar[frozenset[str]] = frozenset({"source", "signer"})

    fact: str
    before: str
    after: str
    time: str
    source: ManifestSource | None = None
    signer: str | None = None

    @property
    def by(self) -> str:
        """Who corrected it, as far as that is known; empty if it is not."""
        known = [str(self.source)] if self.source else []
        known += [f"signed by key {self.signer[:16]}"] if self.signer else []
        return ", ".join(known)
