"""Locks the weights of many models at once: asks the hub, then writes ``manifests.lock``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from builders.weights import locks
from builders.weights.hub_errors import UnreachableError
from builders.weights.locks import NAME, Pin
from builders.weights.resolve import resolve
from builders.weights.standing import DIGEST_FACTS
from zoo.schema.manifest import DigestFrom, HubWeights, Manifest
from zoo.util.errors import UsageError, WeightsError, ZooError

T = TypeVar("T")

_AT_ONCE = 8  # questions to a hub


@dataclass(frozen=True, kw_only=True)
class Locked:
    """What became of models that were to be locked.

    Attributes:
        new: What was locked now, by model.
        errors: Why a model could not be locked.
    """

    new: dict[str, Pin] = field(default_factory=dict)
    errors: dict[str, ZooError] = field(default_factory=dict)


def lock_missing(folder: Path, manifests: Iterable[Manifest]) -> Locked:
    """Locks the weights that neither their manifests nor the lock state completely.

    A model that the hub lacks does not stop the others, and nothing that is locked changes. If the
    lock can't be written, that is the error of each model.

    Args:
        folder: The folder of manifests.
        manifests: The models, with what the lock adds already.

    Raises:
        ManifestError: The lock can't be read.
    """
    wanted = {
        manifest.id: manifest
        for manifest in manifests
        if isinstance(manifest.weights, HubWeights) and not manifest.weights.locked
    }
    pins, errors = ask(wanted.values(), resolve)
    if not pins:
        return Locked(errors=errors)
    try:
        new, others = _write(folder, wanted, pins)
    except UsageError as error:
        return Locked(errors=errors | dict.fromkeys(pins, error))
    return Locked(new=new, errors=errors | others)


def _write(
    folder: Path, manifests: Mapping[str, Manifest], pins: Mapping[str, Pin]
) -> tuple[dict[str, Pin], dict[str, ZooError]]:
    """Adds entries to the lock; those that another process wrote meanwhile stay.

    Returns:
        What was added, and the errors of models of which the other process has another hash.
    """
    new: dict[str, Pin] = {}
    errors: dict[str, ZooError] = {}
    with locks.changing(folder) as write:
        kept = locks.read_locks(folder).models
        for name, pin in pins.items():
            weights, there = manifests[name].weights, kept.get(name)
            assert isinstance(weights, HubWeights)
            if there is None:
                new[name] = pin
            elif not there.is_of(weights):
                if (error := locks.contradiction(name, weights, there)) is not None:
                    errors[name] = error
            elif there.sha256 != pin.sha256:
                errors[name] = other_hash(name, pin, there)
        if new:
            write({**kept, **new})
    return new, errors


def other_hash(model: str, pin: Pin, there: Pin) -> WeightsError:
    """Returns the error that another process has just locked another hash of the same file."""
    return WeightsError(
        f"{model}: the hub states sha256 {pin.sha256}; {NAME}, which another process has just "
        f"written, {there.sha256}",
        hint="the file was replaced between the two, or one of them asked another hub: find out "
        f"which is right, then make lock UPGRADE={model}",
    )


def ask(
    manifests: Iterable[Manifest], question: Callable[[Manifest], T]
) -> tuple[dict[str, T], dict[str, ZooError]]:
    """Asks the hub about models, several at once.

    Once it can't be reached, the rest is not tried.

    Returns:
        The answers and the errors by model, in the order of the models.
    """
    reached, dead = threading.Event(), threading.Event()

    def answer(manifest: Manifest) -> T | ZooError:
        if dead.is_set():
            return UnreachableError(
                f"{manifest.id}: not asked, because the hub can't be reached",
                hint="locking needs the network; check HF_ENDPOINT and HF_HUB_OFFLINE",
            )
        try:
            given = question(manifest)
        except UnreachableError as error:
            if not reached.is_set():
                dead.set()
            return error
        except ZooError as error:
            reached.set()
            return error
        reached.set()
        return given

    listed = list(manifests)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = dict(zip((one.id for one in listed), pool.map(answer, listed), strict=True))
    errors = {name: it for name, it in answers.items() if isinstance(it, ZooError)}
    return {name: it for name, it in answers.items() if not isinstance(it, ZooError)}, errors


def confirm(folder: Path, downloaded: Mapping[str, Manifest]) -> list[str]:
    """Writes down that the weights of models were downloaded and had the locked hash.

    Args:
        folder: The folder of manifests.
        downloaded: The models whose weights were downloaded, as they were locked then.

    Returns:
        The models of which that was not known yet.
    """
    with locks.changing(folder) as write:
        pins = locks.read_locks(folder).models
        confirmed = {
            name: pin.model_copy(update={"digest_from": DigestFrom.DOWNLOAD})
            for name, pin in pins.items()
            if name in downloaded and _confirms(downloaded[name], pin)
        }
        if confirmed:
            write({**pins, **confirmed})
    return list(confirmed)


def _confirms(manifest: Manifest, pin: Pin) -> bool:
    weights = manifest.weights
    return (
        isinstance(weights, HubWeights)
        and pin.is_of(weights)
        and pin.sha256 == weights.sha256
        and not DIGEST_FACTS[pin.digest_from].confirmed
    )
