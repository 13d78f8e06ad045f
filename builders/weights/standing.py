"""What the origin of a hash means: what to say of it, and what to do if a file has another."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.schema.closed import complete
from zoo.schema.manifest import DigestFrom, HubWeights


@dataclass(frozen=True, kw_only=True)
class DigestFacts:
    """What depends on the origin of a hash.

    Attributes:
        words: What it is, for messages; follows "which".
        confirmed: Whether a download can confirm nothing more.
        doubt: What another hash may mean.
    """

    words: str
    confirmed: bool = False
    doubt: str = "the hub serves a different file than the locked one: do not build from it"


DIGEST_FACTS = complete(
    DigestFrom,
    {
        DigestFrom.PUBLIC_FILES: DigestFacts(words="several unrelated public files record"),
        DigestFrom.PUBLIC_FILE: DigestFacts(
            words="a single public file records and no download has confirmed",
            doubt="either the hub now has a different file, or that public file is wrong: do not "
            "build from it before you know which",
        ),
        DigestFrom.HUB: DigestFacts(words="the hub stated when the weights were locked"),
        DigestFrom.DOWNLOAD: DigestFacts(words="an earlier download had", confirmed=True),
    },
)


def digest_words(weights: HubWeights) -> str:
    """Returns who states the hash of weights; follows "which"."""
    return DIGEST_FACTS[weights.digest_from].words if weights.digest_from else "the manifest states"


def origins(weights: HubWeights) -> tuple[DigestFrom, ...]:
    """Returns who may state the hash in an entry of the lock.

    Only a manifest can say that public files record a hash; a download may have confirmed any.

    Args:
        weights: As the manifest states them, without what the lock adds.
    """
    return (weights.digest_from or DigestFrom.HUB, DigestFrom.DOWNLOAD)


def what_now(model: str, weights: HubWeights, *, by_manifest: bool = False) -> str:
    """Returns what to do if a file of a hub has another hash than the locked one.

    Args:
        model: Manifest id.
        weights: The weights.
        by_manifest: Whether the manifest itself pins them: then an upgrade changes nothing.
    """
    doubt = DIGEST_FACTS[weights.digest_from or DigestFrom.HUB].doubt
    if weights.digest_from in (DigestFrom.HUB, DigestFrom.DOWNLOAD) and not by_manifest:
        return f"{doubt}. If it was replaced for a reason, make lock UPGRADE={model} accepts it"
    return (
        f'{doubt}. To trust the hub instead, write "unlocked" for revision, sha256 and size '
        f"into {model}.toml, without digest_from, then make lock UPGRADE={model}"
    )
