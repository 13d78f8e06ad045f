"""``zoo-farm lock``: asks the hub about weights and writes ``manifests.lock``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builders import weights
from builders.cli.first_use import described
from builders.cli.options import pick_manifests
from builders.planning.options import add_options, words
from builders.weights import locking, locks
from builders.weights.hub import Stated
from builders.weights.locks import NAME, Pin
from builders.weights.resolve import compare, is_held, resolve
from builders.weights.standing import origins
from zoo.cli.command import add_arguments
from zoo.schema.manifest import (
    HubWeights,
    Manifest,
    PypiWeights,
    read_manifests,
    select_manifests,
)
from zoo.util.errors import ManifestError, UnlockedError, UsageError, ZooError
from zoo.util.names import counted
from zoo.util.terminal import harmless


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's subcommands."""
    parser = add_arguments(commands, "lock", lock)
    parser.add_argument("names", nargs="*", metavar="MODEL", help="the same as --models")
    add_options(parser, "lock")


@dataclass(kw_only=True)
class _Changes:
    """The changes that a run of the command makes in the lock.

    Attributes:
        pins: Entries that are written.
        gone: Entries that are removed.
        errors: Why a model could not be locked.
    """

    pins: dict[str, Pin] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    errors: dict[str, ZooError] = field(default_factory=dict)


def lock(options: argparse.Namespace) -> int:
    """Asks the hub about weights, and writes what manifests leave open into manifests.lock.

    What is locked is compared with the hub and stays; ``--upgrade`` replaces it, and without
    ``--models`` asks about no other model. Of weights in a PyPI package, whose hash a manifest
    states, it writes the hash of their file into the manifest.

    Raises:
        ZooError: A model could not be locked; the others are.
    """
    if options.locked and options.upgrade:
        raise UsageError("LOCKED=1 only checks the lock, and UPGRADE= changes it: give one of them")
    folder = Path(options.manifests)
    manifests, broken = read_manifests(folder)
    named, upgraded = [*options.names, *words(options.models)], words(options.upgrade)
    if options.locked:
        return _check(folder, select_manifests(manifests, named))
    renewed = pick_manifests(upgraded, manifests, broken) if upgraded else ({}, {})
    if upgraded and not named:
        chosen, broken = renewed
    else:
        chosen = select_manifests(manifests, named)
    known = locks.read_locks(folder).models
    changes = _ask(chosen | renewed[0], known, set(renewed[0]))
    if not (named or upgraded):
        changes.gone = [name for name in known if name not in manifests and name not in broken]
    _write(folder, known, changes)
    _pypi(folder, chosen, changes.errors)
    errors: list[ZooError] = [*broken.values(), *changes.errors.values()]
    _print_all_but_last(errors)
    if errors:
        raise errors[-1]
    return 0


def _print_all_but_last(errors: Sequence[ZooError]) -> None:
    """Prints errors as the one that is raised will be."""
    for error in errors[:-1]:
        print(harmless(f"error: {error}"), file=sys.stderr)


def _check(folder: Path, manifests: Mapping[str, Manifest]) -> int:
    """Checks that everything is locked, without a network."""
    pins = locks.read_locks(folder)
    locked: dict[str, Manifest] = {}
    errors: list[ManifestError] = []
    for name, manifest in manifests.items():
        try:
            locked[name] = locks.with_lock(manifest, pins)
        except ManifestError as error:
            errors.append(error)
    if errors:
        _print_all_but_last(errors)
        raise errors[-1]
    missing = [name for name, manifest in locked.items() if not _is_pinned(manifest)]
    if missing:
        raise UnlockedError(
            f"the weights of {counted(len(missing), 'model')} are not locked: {', '.join(missing)}",
            hint=f"with network: make lock, then review and commit {NAME}",
        )
    print(f"the weights of {counted(len(locked), 'model')} are locked")
    return 0


def _is_pinned(manifest: Manifest) -> bool:
    return not isinstance(manifest.weights, HubWeights) or manifest.weights.pinned


def _ask(
    manifests: Mapping[str, Manifest], known: Mapping[str, Pin], renewed: set[str]
) -> _Changes:
    """Asks the hub about all models, and says what it answers."""

    def question(manifest: Manifest) -> Pin | Stated:
        pin = known.get(manifest.id)
        if pin is None or manifest.id in renewed:
            return resolve(manifest)
        locks.with_lock(manifest, locks.Locks(models={manifest.id: pin}))  # or they contradict
        return compare(manifest, pin)

    of_hub = [one for one in manifests.values() if isinstance(one.weights, HubWeights)]
    answers, errors = locking.ask(of_hub, question)
    changes = _Changes(errors=errors)
    for name, answer in answers.items():
        before, stated = known.get(name), manifests[name].weights
        assert isinstance(stated, HubWeights)
        if isinstance(answer, Stated):
            assert before is not None
            print(f"{name}: unchanged{_newer(manifests[name], before, answer)}")
        elif before is None and stated.locked:
            print(f"{name}: as the manifest states")
        elif before is None:
            changes.pins[name] = answer
            print(f"{name}: locked: {described(answer)}")
        else:
            now = _kept(before, answer, stated)
            if now != before:
                changes.pins[name] = now
            print(f"{name}: {_changed(before, now)}")
    return changes


def _kept(before: Pin, now: Pin, stated: HubWeights) -> Pin:
    """Returns an upgraded entry; who stated a hash that stays is kept, if that can be."""
    if now.sha256 != before.sha256 or before.digest_from not in origins(stated):
        return now
    return now.model_copy(update={"digest_from": before.digest_from})


def _changed(before: Pin, now: Pin) -> str:
    """Returns what an upgrade changed, as text."""
    if now == before:
        return "unchanged"
    if (now.revision, now.sha256) != (before.revision, before.sha256):
        return f"upgraded from {before.revision} {before.sha256}: {described(now)}"
    fields = [
        f"{name} from {getattr(before, name) or 'none'} to {getattr(now, name) or 'none'}"
        for name in type(now).model_fields
        if getattr(now, name) != getattr(before, name)
    ]
    return f"revision and hash stay; changed {', '.join(fields)}"


def _newer(manifest: Manifest, pin: Pin, newest: Stated) -> str:
    assert isinstance(manifest.weights, HubWeights)
    moved = ""
    if newest.repository not in (pin.repository, pin.moved_to):
        moved = f"; the repository is now called {newest.repository}"
    if newest.sha256 == pin.sha256:
        return moved
    accepts = (
        f"{manifest.id}.toml itself pins the weights: to accept it, change revision, sha256 and "
        f"size in its [weights], then make lock UPGRADE={manifest.id}"
        if is_held(manifest.weights)
        else f"make lock UPGRADE={manifest.id} accepts it"
    )
    return (
        f"{moved}; the newest revision, {newest.revision}, has another file, sha256 "
        f"{newest.sha256}: {accepts}"
    )


def _write(folder: Path, known: Mapping[str, Pin], changes: _Changes) -> None:
    """Writes the changes; an entry that another process wrote meanwhile stays."""
    if not (changes.pins or changes.gone):
        return
    with locks.changing(folder) as write:
        now = locks.read_locks(folder).models
        written = {}
        for name, pin in changes.pins.items():
            other = now.get(name)
            if other is None or other == known.get(name):
                written[name] = pin
            elif other.sha256 != pin.sha256:
                changes.errors[name] = locking.other_hash(name, pin, other)
        kept = {name: pin for name, pin in now.items() if name not in changes.gone}
        write({**kept, **written})
    for name in changes.gone:
        print(f"{name}: removed, there is no such manifest")
    print(f"{locks.lock_path(folder)}: review it and commit it")


def _pypi(folder: Path, manifests: Mapping[str, Manifest], errors: dict[str, ZooError]) -> None:
    """Writes the hash of files in PyPI packages into their manifests."""
    for manifest in manifests.values():
        source = manifest.weights.source
        if not isinstance(manifest.weights, HubWeights | PypiWeights):
            print(f"{manifest.id}: {source} weights are pinned already")
        if isinstance(manifest.weights, PypiWeights):
            try:
                digest = weights.look_up_file(manifest)
            except ZooError as error:
                errors[manifest.id] = error
                continue
            if digest is None:
                print(f"{manifest.id}: {source} weights are pinned already")
                continue
            weights.write_file_hash(folder / f"{manifest.id}.toml", digest)
            print(f"{manifest.id}: {manifest.weights.package} {manifest.weights.file} {digest}")
