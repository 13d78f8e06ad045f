"""Weights that are locked when ``make zoo`` needs them first, and confirmed when it has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from builders.planning.request import Request
from builders.weights import locking, locks
from builders.weights.locks import NAME, Pin
from builders.weights.mode import MODE_FACTS
from builders.weights.standing import DIGEST_FACTS
from zoo.schema.licences import allowed_licences
from zoo.schema.manifest import DigestFrom, HubWeights, Manifest
from zoo.util.errors import ZooError
from zoo.util.names import counted

Say = Callable[[str], None]


def lock_first(request: Request, say: Say, *, locked: bool) -> Request:
    """Locks the weights of a request that are not locked, and says so.

    A model that can't be locked fails with the reason; one whose hash the manifest states goes on.
    Weights whose licence forbids publishing engines are not asked for: nothing is built of them.

    Args:
        request: The request.
        say: Called with messages for the user.
        locked: Whether nothing may be locked: then this does nothing.

    Raises:
        ManifestError: The lock can't be read.
    """
    if locked or MODE_FACTS[request.weights].kind.seeded:
        return request
    allowed = allowed_licences()
    publishable = [one for one in request.manifests.values() if one.licence in allowed]
    outcome = locking.lock_missing(request.manifest_dir, publishable)
    for name, pin in outcome.new.items():
        say(f"locked {name}: {described(pin)}")
    if outcome.new:
        path = locks.lock_path(request.manifest_dir)
        say(f"{path}: {counted(len(outcome.new), 'model')} locked; review it and commit it")
    good, bad = locks.read_locked(request.manifest_dir)
    failed: dict[str, ZooError] = {}
    for name, error in outcome.errors.items():
        if _is_pinned(request.manifests[name]):
            say(f"{error.message}; continuing with the hash that the manifest states")
        else:
            failed[name] = error
    failed |= {name: error for name, error in bad.items() if name in request.manifests}
    manifests = {name: good.get(name, manifest) for name, manifest in request.manifests.items()}
    return replace(request, manifests=manifests, unlocked=failed)


def confirm_weights(request: Request, exported: Iterable[str], say: Say, *, locked: bool) -> None:
    """Writes down, and says, which hashes a download has confirmed.

    Args:
        request: The request.
        exported: The models whose weights were downloaded and had the locked hash.
        say: Called with messages for the user.
        locked: Whether the lock may not be written.
    """
    if MODE_FACTS[request.weights].kind.seeded:
        return
    downloaded = {name: request.manifests[name] for name in exported}
    waiting = [name for name, manifest in downloaded.items() if _is_unconfirmed(manifest)]
    if not waiting:
        return
    if locked:
        names = [name for name in waiting if _digest_from(downloaded[name]) is _ALONE]
        if names:
            say(
                f"a download confirms the hash of {', '.join(names)}, which a single public file "
                f"records; make lock and make zoo without LOCKED=1 write that into {NAME}"
            )
        return
    try:
        confirmed = locking.confirm(request.manifest_dir, downloaded)
    except ZooError as error:  # the engines are published: this run has not failed
        say(f"a download confirms the hash of {', '.join(waiting)}, but {error}")
        return
    if confirmed:
        say(f"{NAME}: a download confirms the hash of {', '.join(confirmed)}")


def described(pin: Pin) -> str:
    """Returns a lock as text: where the weights are, what they are, and who says so."""
    moved = f", now called {pin.moved_to}" if pin.moved_to else ""
    hub = f", asked at {pin.hub}" if pin.hub else ""
    return (
        f"{pin.repository}{moved} {pin.revision} {pin.file}, {pin.size} bytes, sha256 "
        f"{pin.sha256}, which {DIGEST_FACTS[pin.digest_from].words}{hub}"
    )


_ALONE = DigestFrom.PUBLIC_FILE


def _digest_from(manifest: Manifest) -> DigestFrom | None:
    return manifest.weights.digest_from if isinstance(manifest.weights, HubWeights) else None


def _is_unconfirmed(manifest: Manifest) -> bool:
    origin = _digest_from(manifest)
    return origin is not None and not DIGEST_FACTS[origin].confirmed


def _is_pinned(manifest: Manifest) -> bool:
    return isinstance(manifest.weights, HubWeights) and manifest.weights.pinned
