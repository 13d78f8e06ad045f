"""Lets many clients pull from one small HTTP server while the repository changes under them.

Half of the clients share a cache, the others have one each, which they empty after every round.
Meanwhile a publisher publishes new versions, lets superseded ones age out of the index and collects
garbage, and the repository is mirrored over HTTP again and again. Engines are made up: their bytes
follow from the model and the version in them, so that every byte that arrives is checked.
Run it with the folder ``tests`` on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, ClassVar

from support.signed_repository import Signed

from builders.publish.garbage import collect
from builders.publish.keys import Expiry
from zoo.client.client import Client
from zoo.client.mirror import Filter, mirror
from zoo.client.trust import SignedIndex
from zoo.repository.repository import Repository
from zoo.stores import LocalStore, ObjectStore, open_store
from zoo.util.errors import ZooError

_FORK = multiprocessing.get_context("fork")
_NEXT_ROOT = re.compile(r"/metadata/\d+\.root\.json")
"""A client asks for the next root until there is none."""

_AGE = timedelta(days=31)
"""Later than a superseded engine stays in the index."""

_KEYS = Expiry(root=100_000, targets=100_000)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What to do.

    Attributes:
        folder: Where everything is written.
        seconds: How long.
        clients: Number of clients, each a process.
        engines: Number of models, each with one current engine.
        size: Length of an engine in bytes.
        pause: Seconds between two publications, and between two rounds of a client.
        grace: Seconds from condemning a file to deleting it.
        sample: Seconds between two looks at the memory.
    """

    folder: Path
    seconds: float
    clients: int
    engines: int
    size: int
    pause: float
    grace: float
    sample: float


@dataclass(kw_only=True)
class Outcome:
    """What happened.

    Attributes:
        counts: Number of pulls, publications, mirrors, …, and of requests by status.
        faults: What went wrong, a line each.
        memory: Name of each process: its anonymous memory in bytes at each look.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory: dict[str, list[int]] = field(default_factory=dict)


def content(model: str, version: int, size: int) -> bytes:
    """Returns the bytes of an engine, which say what it is."""
    head = f"{model} {version}\n".encode()
    return head + random.Random(head).randbytes(size - len(head))


def run(load: Load) -> Outcome:
    """Runs the processes for the time, and returns what they report."""
    signed = Signed(load.folder, expiry=_KEYS)
    for number in range(load.engines):
        signed.propose(signed.build(f"m{number}", content(f"m{number}", 0, load.size)))
    signed.publish()
    over, closing, port = _FORK.Event(), _FORK.Event(), _FORK.SimpleQueue()
    server = _FORK.Process(target=_serve, args=(load, closing, port), name="server")
    server.start()
    url = f"http://127.0.0.1:{port.get()}"
    works: dict[str, Callable[[Load, str, str], _Work]] = {
        "publisher": partial(_Publisher, signed),
        "mirror": _Mirror,
    }
    works |= {f"client{number}": _Reader for number in range(load.clients)}
    processes = [
        _FORK.Process(target=_repeat, args=(work, load, url, name, over), name=name)
        for name, work in works.items()
    ]
    for process in processes:
        process.start()
    outcome = Outcome()
    try:
        _watch(load, [server, *processes], outcome)
    finally:
        over.set()
        for process in processes:
            process.join()
        closing.set()
        server.join()
    for process in (*processes, server):
        if process.exitcode:
            outcome.faults.append(f"{process.name} ended with {process.exitcode}")
        else:
            told = json.loads((load.folder / f"{process.name}.json").read_text())
            outcome.counts.update(told["counts"])
            outcome.faults += told["faults"]
    return outcome


class _Work:
    """What a process does again and again.

    Args:
        load: What to do.
        url: Where the repository is served.
        name: The process's name.
    """

    def __init__(self, load: Load, url: str, name: str) -> None:
        self.load, self.url, self.name = load, url, name
        self.outcome = Outcome()
        self.root = (load.folder / "keys/root.json").read_bytes()

    def once(self, number: int) -> None:
        raise NotImplementedError

    def reader(self, store: ObjectStore, home: str) -> Client:
        """Returns a client as a new command makes it."""
        folder = self.load.folder / home
        signed = SignedIndex(store, folder / "verified", self.root)
        return Client(Repository(store, signed), folder / "cache", signed)

    def read(self, client: Client) -> None:
        """Pulls every engine that the index names and compares each with what it must be."""
        for row in client.index().models:
            for entry in client.model(row.model).engines:
                data = client.pull(row.model, entry).engine.read_bytes()
                name, _, version = data.split(b"\n", 1)[0].decode().partition(" ")
                if name != row.model or data != content(name, int(version), self.load.size):
                    self.outcome.faults.append(f"{self.name}: wrong bytes of {row.model}")
                self.outcome.counts["engines checked"] += 1
        client.signed.must_be_fresh()


class _Reader(_Work):
    def __init__(self, load: Load, url: str, name: str) -> None:
        super().__init__(load, url, name)
        self.store = open_store(url)
        self.shared = int(name.removeprefix("client")) % 2 == 0
        self.home = "shared" if self.shared else name

    def once(self, number: int) -> None:
        self.read(self.reader(self.store, self.home))
        self.outcome.counts["rounds of clients"] += 1
        if not self.shared:
            shutil.rmtree(self.load.folder / self.home / "cache")


class _Publisher(_Work):
    def __init__(self, signed: Signed, load: Load, url: str, name: str) -> None:
        super().__init__(load, url, name)
        self.signed = signed

    def once(self, number: int) -> None:
        model = f"m{number % self.load.engines}"
        self.signed.release(model, content(model, number, self.load.size))
        self.outcome.counts["publications"] += 1
        if number % 4 == 0:
            self.signed.later(days=_AGE.days)
            self.signed.publish(refresh=True)
            self._sweep()

    def _sweep(self) -> None:
        client = self.reader(self.signed.store, "sweeper")
        grace = timedelta(seconds=self.load.grace)
        garbage = collect(client, grace, datetime.now(timezone.utc), delete=True)
        self.outcome.counts["collections of garbage"] += 1
        self.outcome.counts["files deleted"] += len(garbage.deleted)


class _Mirror(_Work):
    def once(self, number: int) -> None:
        copy = LocalStore(self.load.folder / "mirror")
        mirror(self.reader(open_store(self.url), "mirroring"), copy, Filter())
        self.read(self.reader(copy, "mirrored"))
        self.outcome.counts["mirrors, each read in full"] += 1


def _repeat(
    work: Callable[[Load, str, str], _Work], load: Load, url: str, name: str, over: Event
) -> None:
    doing, number = work(load, url, name), 0
    while not over.is_set():
        number += 1
        try:
            doing.once(number)
        except (ZooError, OSError, KeyError, ValueError) as error:
            doing.outcome.faults.append(f"{name}: {type(error).__name__}: {error}".split("\n")[0])
        over.wait(load.pause)
    _tell(load, name, doing.outcome)


def _tell(load: Load, name: str, outcome: Outcome) -> None:
    told = {"counts": outcome.counts, "faults": outcome.faults}
    (load.folder / f"{name}.json").write_text(json.dumps(told))


class _Files(SimpleHTTPRequestHandler):
    """Serves the store; counts its answers, and keeps what was not found."""

    protocol_version = "HTTP/1.1"
    outcome: ClassVar[Outcome] = Outcome()

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client has read enough
            super().handle()

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def send_response(self, code: int, message: str | None = None) -> None:
        expected = bool(_NEXT_ROOT.fullmatch(self.path))
        if code != 200 and not expected:
            self.outcome.faults.append(f"server: {code} for {self.path}")
        self.outcome.counts["requests" if code == 200 else f"requests, {code}"] += 1
        super().send_response(code, message)


def _serve(load: Load, closing: Event, port: Any) -> None:
    class Handler(_Files):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(load.folder / "store"))

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        server.timeout = 0.2
        port.put(server.server_port)
        while not closing.is_set():
            server.handle_request()
    _tell(load, "server", Handler.outcome)


def _watch(load: Load, processes: list[Any], outcome: Outcome) -> None:
    until = time.monotonic() + load.seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, load.sample))
        for process in processes:
            if process.is_alive():
                outcome.memory.setdefault(process.name, []).append(_memory(process.pid))


def _memory(process: int) -> int:
    """Returns the memory of a process in bytes, without what it shares with files."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) << 10


def growth(looks: list[int]) -> float:
    """Returns how much a process grew from the second fifth of the time to the last, in bytes."""
    fifth = max(1, len(looks) // 5)
    early, late = looks[fifth : 2 * fifth], looks[-fifth:]
    return sum(late) / len(late) - sum(early) / len(early) if early else 0.0


def main() -> int:
    """Runs the load and prints what happened."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--engines", type=int, default=20)
    parser.add_argument("--size", type=int, default=1 << 20, help="bytes of an engine")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two rounds")
    parser.add_argument("--grace", type=float, default=60, help="seconds before garbage is deleted")
    parser.add_argument("--sample", type=float, default=5, help="seconds between looks at memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        load = Load(folder=Path(scratch) / "load", **vars(options))
        outcome = run(load)
    for what, count in sorted(outcome.counts.items()):
        print(f"{what}: {count:,}")
    print("\nmemory in MiB: at the beginning, at the end, at most; growth after the first fifth")
    for name, looks in _groups(outcome.memory).items():
        figures = " ".join(f"{value / 2**20:.1f}" for value in (looks[0], looks[-1], max(looks)))
        print(f"{name}: {figures}; {growth(looks) / 2**20:+.1f}")
    print(f"\nfaults: {len(outcome.faults)}")
    for fault in outcome.faults[:50]:
        print(fault)
    return 1 if outcome.faults else 0


def _groups(memory: dict[str, list[int]]) -> dict[str, list[int]]:
    """Returns the mean of all clients in place of each."""
    clients = [looks for name, looks in memory.items() if name.startswith("client")]
    mean = [sum(column) // len(column) for column in zip(*clients, strict=False)]
    rest = {name: looks for name, looks in memory.items() if not name.startswith("client")}
    return {**rest, f"mean of {len(clients)} clients": mean}


if __name__ == "__main__":
    sys.exit(main())
