"""Which weights engines are built with: those of the manifests, or random ones for a dry run."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.schema.closed import complete
from zoo.schema.records import Kind
from zoo.util.errors import UsageError
from zoo.util.names import perhaps
from zoo.util.strenum import StrEnum


class WeightsMode(StrEnum):
    """Which weights engines are built with: a value of ``WEIGHTS=``."""

    MANIFEST = "manifest"
    SEEDED = "seeded"


@dataclass(frozen=True, kw_only=True)
class ModeFacts:
    """What depends on a mode.

    Attributes:
        meaning: What it stands for, for users.
        kind: The kind of repository that its engines are published in.
        suffix: Of the default names of the repository's and the catalog's folder.
    """

    meaning: str
    kind: Kind
    suffix: str = ""


MODE_FACTS = complete(
    WeightsMode,
    {
        WeightsMode.MANIFEST: ModeFacts(meaning="what each manifest says", kind=Kind.RELEASE),
        WeightsMode.SEEDED: ModeFacts(meaning="a dry run", kind=Kind.DRY_RUN, suffix="-seeded"),
    },
)


def parse_mode(text: str) -> WeightsMode:
    """Reads the value of ``WEIGHTS=``.

    Raises:
        UsageError: There is no such mode.
    """
    if text not in list(WeightsMode):
        meanings = " or ".join(f"{mode} ({facts.meaning})" for mode, facts in MODE_FACTS.items())
        raise UsageError(
            f"unknown weights '{text}'.{perhaps(text, list(WeightsMode))}",
            hint=f"WEIGHTS= takes {meanings}",
        )
    return WeightsMode(text)


def mode_of(kind: Kind | None) -> WeightsMode:
    """Returns the mode of a repository's engines.

    Args:
        kind: The repository's kind; None if nothing has been published there.
    """
    modes = {facts.kind: mode for mode, facts in MODE_FACTS.items()}
    return WeightsMode.MANIFEST if kind is None else modes[kind]
