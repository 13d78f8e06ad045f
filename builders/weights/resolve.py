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
        WeightsError: The hub can't be reached or lacks the file, has no revision with the hash
            that the manifest states, or states another size than the manifest.
        ManifestError: The hub states another licence or tag than the manifest.
    """
    weights = _hub_weights(manifest)
    stated = _find(manifest.id, weights)
    if weights.size not in (UNLOCKED, stated.size):
        raise _other_size(manifest.id, weights, stated, weights.size, f"{manifest.id}.toml")
    check_card(manifest, stated.revision)
    return _pin(weights, stated, weights.digest_from or DigestFrom.HUB)


def compare(manifest: Manifest, pin: Pin) -> Stated:
    """Asks the hub about locked weights.

    Returns:
        What it states about the newest revision, which may be of another file.

    Raises:
        WeightsError: The hub has another file than the locked one at the locked revision, another
            size of it or another name of the repository; the error names both.
        ManifestError: The hub states another licence or tag than the manifest.
    """
    weights = _hub_weights(manifest)
    newest = hub.look_up(manifest.id, weights)
    check_card(manifest, newest.revision)
    _check_name(manifest.id, pin, newest)
    if newest.sha256 == pin.sha256:
        _check_size(manifest.id, weights, pin, newest)
        return newest
    there = hub.look_up(manifest.id, weights, pin.revision)
    if there.sha256 != pin.sha256:
        locked = weights.model_copy(update={"digest_from": pin.digest_from})
        raise WeightsError(
            f"{manifest.id}: {pin.repository}@{pin.revision[:12]} {pin.file} has sha256 "
            f"{there.sha256}; {NAME} states {pin.sha256}, which {digest_words(locked)}",
            hint=what_now(manifest.id, locked, by_manifest=is_held(weights)),
        )
    _check_size(manifest.id, weights, pin, there)
    return newest


def is_held(weights: HubWeights) -> bool:
    """Whether a manifest itself pins its weights, so that no upgrade brings others.

    Args:
        weights: As the manifest states them, without what the lock adds.
    """
    return weights.pinned or weights.revision != UNLOCKED


def _check_name(model: str, pin: Pin, newest: Stated) -> None:
    """Raises WeightsError if an entry gives a repository that was never renamed another name.

    Only the hub that was asked then can tell; a mirror may know no names of earlier days.
    """
    if pin.moved_to is None or pin.hub != _other_hub() or newest.repository != pin.repository:
        return
    raise WeightsError(
        f"{model}: {NAME} states that {pin.repository} is now called {pin.moved_to}; the hub has "
        f"it under its own name, {newest.repository}",
        hint=f"find out who wrote that; make lock UPGRADE={model} looks the weights up again",
    )


def _check_size(model: str, weights: HubWeights, pin: Pin, stated: Stated) -> None:
    """Raises WeightsError if the hub states another size of the locked file."""
    if stated.size == pin.size:
        return
    by = NAME if weights.size == UNLOCKED else f"{model}.toml"
    raise _other_size(model, weights, stated, pin.size, by)


def _other_size(
    model: str, weights: HubWeights, stated: Stated, size: int | str, by: str
) -> WeightsError:
    """Returns the error that a size is not the hub's; a stated hash is the hub's."""
    change = (
        f"make lock UPGRADE={model} corrects it"
        if by == NAME
        else f"correct weights.size to {stated.size}, then make lock UPGRADE={model}"
    )
    same = "the hash is the stated one, so the size is wrong: "
    return WeightsError(
        f"{model}: {weights.repository}@{stated.revision[:12]} {weights.file} has {stated.size} "
        f"bytes; {by} states a size of {size} bytes",
        hint=(same if by == NAME or weights.pinned else "") + change,
    )


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
        hint=what_now(model, weights, by_manifest=True),
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
