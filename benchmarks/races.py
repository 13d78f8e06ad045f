"""Counts what goes wrong when processes do at once what should be done once.

Each race starts real processes. ``first-runs``: several processes publish to a new repository that
has no keys yet. ``mirrors``: a repository is mirrored while its keys are rotated, its index is
signed again and its garbage is collected; readers on the first root then read every mirror.
Run it with the folder ``tests`` on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

from support.signed_repository import Signed, no_passphrase

from builders.publish.garbage import collect
from builders.publish.keys import ROLES, KeyRing, new_key
from builders.publish.signer import open_desk
from builders.publish.tuf_metadata import SignedMetadata
from zoo.client.client import Client
from zoo.client.mirror import Filter, mirror
from zoo.client.trust import SignedIndex
from zoo.repository.repository import Repository
from zoo.schema.records import Kind
from zoo.stores import LocalStore
from zoo.util.errors import ZooError

_FORK = multiprocessing.get_context("fork")
_PAUSE = 0.05
"""Seconds between two rotations, signatures or collections of garbage."""

ENGINES = 4
"""Models of the repository that is mirrored, each with an engine of 2 MB."""


def first_runs(folder: Path, processes: int) -> list[str]:
    """Lets processes publish to a new repository at once.

    Returns:
        What went wrong: failed processes, keys that do not belong together, an index that can't be
        read with the root beside the keys.
    """
    store = LocalStore(folder / "repository")
    Repository(store).claim(Kind.RELEASE)
    start = _FORK.Barrier(processes)
    runs = [_FORK.Process(target=_publish, args=(folder, start)) for _ in range(processes)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    wrong = [f"a process ended with {run.exitcode}" for run in runs if run.exitcode]
    keys = folder / "repository.keys"
    try:
        ring = KeyRing(keys, no_passphrase)
        for role in ROLES:
            signer = ring.signer(ring.entry(role))
            signer.public_key.verify_signature(signer.sign(b"x"), b"x")
    except Exception as error:  # any of them is a wrong key
        wrong.append(f"the keys can't sign: {type(error).__name__}")
    try:
        root = (keys / "root.json").read_bytes()
        reader = SignedIndex(store, folder / "reader", root)
        wrong += [] if reader.read("index.json") else ["nothing is signed"]
    except (ZooError, OSError) as error:
        wrong.append(f"readers: {error}")
    return wrong


def _publish(folder: Path, start: Barrier) -> None:
    os.environ["ZOO_HOME"] = str(folder / "home")
    sys.stderr = (folder / "errors").open("a")
    store = str(folder / "repository")
    desk = open_desk(store, "", lambda text: None)
    assert desk._publish is not None
    start.wait()
    desk._publish()


def repository_to_mirror(folder: Path) -> Signed:
    """Returns a signed repository of :data:`ENGINES` models."""
    signed = Signed(folder)
    for number in range(ENGINES):
        signed.propose(signed.build(f"m{number}", bytes([number]) * 2_000_000))
    signed.publish()
    return signed


def mirrors(folder: Path, rounds: int) -> list[str]:
    """Mirrors a repository that changes meanwhile.

    Returns:
        What went wrong: mirrors that failed, and mirrors that a reader on the first root can't read
        in full.
    """
    signed = repository_to_mirror(folder)
    first = signed.ring.root_file.read_bytes()
    over = _FORK.Event()
    works = (_rotate, _refresh, _sweep, _read)
    helpers = [_FORK.Process(target=_repeat, args=(work, folder, over)) for work in works]
    for helper in helpers:
        helper.start()
    wrong = []
    try:
        for number in range(rounds):
            copy = LocalStore(folder / f"mirror{number}")
            try:
                mirror(_shared(folder, first), copy, Filter())
                _read_all(copy, folder / f"reader{number}", first)
            except (ZooError, OSError, KeyError, ValueError) as error:
                wrong.append(f"{number}: {type(error).__name__}: {error}".split("\n")[0])
    finally:
        over.set()
        for helper in helpers:
            helper.join()
    wrong += [f"a helper ended with {helper.exitcode}" for helper in helpers if helper.exitcode]
    return wrong


def _shared(folder: Path, root: bytes) -> Client:
    """Returns a client of the repository whose folder other processes use as well."""
    store = LocalStore(folder / "store")
    signed = SignedIndex(store, folder / "shared/verified", root)
    return Client(Repository(store, signed), folder / "shared/cache", signed)


def _read_all(store: LocalStore, home: Path, root: bytes) -> None:
    signed = SignedIndex(store, home, root)
    client = Client(Repository(store, signed), home / "cache", signed)
    for row in client.index().models:
        for entry in client.model(row.model).engines:
            client.pull(row.model, entry)
    signed.must_be_fresh()


def _repeat(work: Callable[[Path, int], None], folder: Path, over: Event) -> None:
    number = 0
    while not over.is_set():
        number += 1
        work(folder, number)
        time.sleep(_PAUSE)


def _rotate(folder: Path, number: int) -> None:
    ring, store = KeyRing(folder / "keys", no_passphrase), LocalStore(folder / "store")
    role = ROLES[number % 3]
    with store.lock("publish"):
        metadata = SignedMetadata(store, ring)
        metadata.load()
        metadata.rotate(role, new_key(ring.folder, role, None))


def _refresh(folder: Path, number: int) -> None:
    ring, store = KeyRing(folder / "keys", no_passphrase), LocalStore(folder / "store")
    with store.lock("publish"):
        metadata = SignedMetadata(store, ring)
        try:
            metadata.load()
            metadata.finish()
        except ZooError:
            return  # the ring was read before a rotation


def _sweep(folder: Path, number: int) -> None:
    root = (folder / "keys/root.json").read_bytes()
    store = LocalStore(folder / "store")
    signed = SignedIndex(store, folder / "sweeper", root)
    client = Client(Repository(store, signed), folder / "sweeper/cache", signed)
    now = datetime.now(timezone.utc) + timedelta(seconds=1)
    try:
        collect(client, timedelta(0), now, delete=True)
    except ZooError:
        return


def _read(folder: Path, number: int) -> None:
    root = (folder / "keys/root.json").read_bytes()
    try:
        _shared(folder, root).index()
    except ZooError:
        return


def main() -> int:
    """Runs a race a number of times and prints what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("race", choices=["first-runs", "mirrors"])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--processes", type=int, default=4, help="of first-runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.race == "mirrors":
            wrong = mirrors(Path(scratch) / "race", options.rounds)
            bad = len(wrong)
            for text in wrong:
                print(text)
        else:
            bad = 0
            for number in range(options.rounds):
                folder = Path(scratch) / str(number)
                folder.mkdir()
                if wrong := first_runs(folder, options.processes):
                    bad += 1
                    print(number, "; ".join(wrong))
    print(f"{options.race}: {bad} of {options.rounds} went wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
