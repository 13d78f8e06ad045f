"""Benchmarks planning and index lookups: requests, bytes and seconds.

Prints the tables in docs/results/repository.md. The repositories are synthetic: complete and
signed, but nothing in them was built.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.paths import ROOT
from support.published_plan import publish_all
from support.s3_server import S3Server
from support.signed_repository import Signed, publish_many
from support.wants_everything import everywhere, request

from builders.planning.plan import plan_farm
from zoo.repository.repository import Repository
from zoo.schema.manifest import load_manifests
from zoo.stores import ObjectStore, open_store


class Counting:
    """A store that counts its requests by method, and the bytes that it returns."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.requests: Counter[str] = Counter()
        self.bytes = 0

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """Returns an object's bytes and counts the request."""
        self.requests["read"] += 1
        try:
            data = self._store.get(key, limit=limit)
        except KeyError:
            self.requests["of them absent"] += 1
            raise
        self.bytes += len(data)
        return data

    def list(self, prefix: str) -> Any:
        """Lists keys; counts as many requests as S3 needs, one per 1,000 keys."""
        keys = list(self._store.list(prefix))
        self.requests["list"] += max(1, -(-len(keys) // 1000))
        return iter(keys)

    def size(self, key: str) -> int | None:
        """Returns an object's length."""
        self.requests["size"] += 1
        return self._store.size(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def main() -> None:
    """Runs the benchmarks and prints their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repository", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of plans per store")
    parser.add_argument(
        "--models", type=int, default=1000,
        help="models of 20 engines each for the index lookups; 0 skips them",
    )  # fmt: skip
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, S3Server(Path(name) / "server") as server:
        os.environ.update(server.environment)
        places = {"directory": str(Path(name) / "plan"), "S3": server.new_url()}
        print("## Planning\n\n| where | targets | requests | seconds | of a processor |")
        print("| --- | --- | --- | --- | --- |")
        for where, url in places.items():
            print(f"| {where} | {planning(url, options.rounds)} |", flush=True)
        if not options.models:
            return
        print("\n## One engine\n\n| | requests | bytes |\n| --- | --- | --- |")
        for what, (requests, size) in lookups(Path(name) / "many", options.models).items():
            print(f"| {what} | {requests} | {size:,} |")


def planning(url: str, rounds: int) -> str:
    """Plans for a repository with everything published, and then with an empty index."""
    manifests = load_manifests(ROOT / "manifests")
    places = everywhere()
    targets = publish_all(Repository(open_store(url)), manifests, places)
    wanted = request(manifests, places=places)
    seconds, processor, requests = [], [], Counter[str]()
    for _ in range(rounds):
        store: Any = Counting(open_store(url))
        begun, cpu = time.perf_counter(), time.process_time()
        plan = plan_farm(Repository(store), wanted)
        seconds.append(time.perf_counter() - begun)
        processor.append(time.process_time() - cpu)
        assert set(plan.total.actions) == {"nothing"}
        requests = store.requests
    unlisted: Any = Counting(open_store(url))
    unlisted.delete("index.json")
    plan_farm(Repository(unlisted), wanted)
    return (
        f"{targets:,} | {words(requests)}; with nothing in the index {words(unlisted.requests)} | "
        f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | "
        f"{statistics.median(processor):.2f}"
    )


def lookups(folder: Path, models: int) -> dict[str, tuple[str, int]]:
    """Reads one model's signed index, for the first time and again, and the list of all models."""
    signed = Signed(folder, bins=16)
    publish_many(signed, models)

    def read(name: str, work: Callable[[Any], Any]) -> tuple[str, int]:
        store: Any = Counting(signed.store)
        work(signed.client(name, store=store))
        return words(store.requests), store.bytes

    middle = f"model_{models // 2}"
    return {
        f"one model of {models:,}, first contact": read("one", lambda c: c.model(middle)),
        "the same model again": read("one", lambda c: c.model(middle)),
        "another model": read("one", lambda c: c.model("model_1")),
        "the list of all models, first contact": read("all", lambda c: c.index()),
    }


def words(requests: Counter[str]) -> str:
    """Returns the counts as text."""
    return ", ".join(f"{count} {name}" for name, count in sorted(requests.items(), reverse=True))


if __name__ == "__main__":
    main()
