"""Asks the hub what locks the weights of models, and compares it with what is locked already."""

from __future__ import annotations

from builders.weights import hub
from builders.weights.card import check_card
from builders.weights.hub import Stated
from builders.weights.hub_errors import NotThereError, endpoint
from builders.weights.locks import NAME, Pin
from builders.weights.standing import digest_words, what_now
from zoo.schema.manifest import UNLOCKED, DigestFrom, HubWeights, Manifest
from zoo.util.errors import WeightsError

_PUBLIC_HUB = "https://huggingface.co"


def resolve(manifest: Manifest) -> Pin:
    """Returns what locks the weights of a manifest that leaves something of it open.

    Without a hash in the manifest, that is what the hub states now: trust on first use.

    Args:
        manifest: A model with weights on a hub, as its file states them.

    Raises:
        WeightsError: The hub can't be reached or lacks the file, or has no revision with the hash
            that the manifest states.
        ManifestError: The hub states another licence or tag than the manifest.
    """
    weights = _hub_weights(manifest)
    stated = _find(manifest.id, weights)
    check_card(manifest, stated.revision)
    return _pin(weights, stated, weights.digest_from or DigestFrom.HUB)


def compare(manifest: Manifest, pin: Pin) -> Stated:
    """Asks the hub about locked weights.

    Returns:
        What it states about the newest revision, which may be of another file.

    Raises:
        WeightsError: The hub has another file than the locked one at the locked revision; the
            error names both hashes.
        ManifestError: The hub states another licence or tag than the manifest.
    """
    weights = _hub_weights(manifest)
    newest = hub.look_up(manifest.id, weights)
    check_card(manifest, newest.revision)
    if newest.sha256 == pin.sha256:
        return newest
    there = hub.look_up(manifest.id, weights, pin.revision)
    if there.sha256 != pin.sha256:
        locked = weights.model_copy(update={"digest_from": pin.digest_from})
        raise WeightsError(
            f"{manifest.id}: {pin.repository}@{pin.revision[:12]} {pin.file} has sha256 "
            f"{there.sha256}; {NAME} states {pin.sha256}, which {digest_words(locked)}",
            hint=what_now(manifest.id, locked),
        )
    return newest


def _hub_weights(manifest: Manifest) -> HubWeights:
    assert isinstance(manifest.weights, HubWeights)
    return manifest.weights


def _find(model: str, weights: HubWeights) -> Stated:
    """Returns the first revision that has the file with the manifest's hash, if it states one."""
    if weights.revision != UNLOCKED:
        stated = hub.look_up(model, weights, weights.revision)
        if weights.sha256 in (UNLOCKED, stated.sha256):
            return stated
        raise _other(model, weights, stated)
    if not weights.pinned:
        return hub.look_up(model, weights)
    for revision in weights.recorded_revisions:
        try:
            stated = hub.look_up(model, weights, revision)
        except NotThereError:
            continue  # recorded by others, not by this hub
        if stated.sha256 == weights.sha256:
            return stated
    newest = hub.look_up(model, weights)
    if newest.sha256 == weights.sha256:
        return newest
    raise _other(model, weights, newest)


def _other(model: str, weights: HubWeights, stated: Stated) -> WeightsError:
    return WeightsError(
        f"{model}: {weights.repository}@{stated.revision[:12]} {weights.file} has sha256 "
        f"{stated.sha256}; the manifest states {weights.sha256}, which {digest_words(weights)}",
        hint=what_now(model, weights),
    )


def _pin(weights: HubWeights, stated: Stated, digest_from: DigestFrom) -> Pin:
    return Pin(
        repository=weights.repository,
        file=weights.file,
        revision=stated.revision,
        sha256=stated.sha256,
        size=stated.size,
        digest_from=digest_from,
        moved_to=stated.repository if stated.repository != weights.repository else None,
        hub=_other_hub(),
    )


def _other_hub() -> str | None:
    """Returns the address of the hub, unless it is the public one."""
    return None if endpoint() == _PUBLIC_HUB else endpoint()
