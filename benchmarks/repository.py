"""Measures what planning and learning about an engine cost, by requests, bytes and seconds.

    .venv/bin/python benchmarks/repository.py

Prints tables for docs/results/repository.md. The repositories are made up: whole in every way, but
nothing in them was built.
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
from support.published_plan import everywhere, publish_all, request
from support.s3_server import S3Server
from support.signed_repository import Signed, publish_many

from builders.planning.plan import plan_farm
from zoo.repository.repository import Repository
from zoo.schema.manifest import load_manifests
from zoo.stores import ObjectStore, open_store


class Counting:
    """A store that counts what is asked of it, by method, and the bytes that it gives."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.asked: Counter[str] = Counter()
        self.bytes = 0

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """Returns an object's bytes, counted."""
        self.asked["read"] += 1
        try:
            data = self._store.get(key, limit=limit)
        except KeyError:
            self.asked["of them absent"] += 1
            raise
        self.bytes += len(data)
        return data

    def list(self, prefix: str) -> Any:
        """Lists; counted as the requests that S3 would need, one for each 1,000 keys."""
        found = list(self._store.list(prefix))
        self.asked["list"] += max(1, -(-len(found) // 1000))
        return iter(found)

    def size(self, key: str) -> int | None:
        """Returns an object's length."""
        self.asked["size"] += 1
        return self._store.size(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description="requests, bytes and seconds of a repository")
    parser.add_argument("--rounds", type=int, default=5, help="plans of each")
    parser.add_argument("--models", type=int, default=1000, help="models of 20 engines each, or 0")
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
        for what, (asked, size) in learning(Path(name) / "many", options.models).items():
            print(f"| {what} | {asked} | {size:,} |")


def planning(url: str, rounds: int) -> str:
    """Plans for a repository in which everything is published; then with nothing listed."""
    manifests = load_manifests(ROOT / "manifests")
    places = everywhere()
    targets = publish_all(Repository(open_store(url)), manifests, places)
    asked_for = request(manifests, places=places)
    seconds, processor, asked = [], [], Counter[str]()
    for _ in range(rounds):
        store: Any = Counting(open_store(url))
        begun, cpu = time.perf_counter(), time.process_time()
        plan = plan_farm(Repository(store), asked_for)
        seconds.append(time.perf_counter() - begun)
        processor.append(time.process_time() - cpu)
        assert set(plan.total.actions) == {"nothing"}
        asked = store.asked
    unlisted: Any = Counting(open_store(url))
    unlisted.delete("index.json")
    plan_farm(Repository(unlisted), asked_for)
    return (
        f"{targets:,} | {words(asked)}; with nothing in the index {words(unlisted.asked)} | "
        f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | "
        f"{statistics.median(processor):.2f}"
    )


def learning(folder: Path, models: int) -> dict[str, tuple[str, int]]:
    """Reads what is signed of one model, for the first time and again, and the list of all."""
    signed = Signed(folder, bins=16)
    publish_many(signed, models)

    def read(name: str, work: Callable[[Any], Any]) -> tuple[str, int]:
        store: Any = Counting(signed.store)
        work(signed.client(name, store=store))
        return words(store.asked), store.bytes

    middle = f"model_{models // 2}"
    return {
        f"one model of {models:,}, first contact": read("one", lambda c: c.model(middle)),
        "the same model again": read("one", lambda c: c.model(middle)),
        "another model": read("one", lambda c: c.model("model_1")),
        "the list of all models, first contact": read("all", lambda c: c.index()),
    }


def words(asked: Counter[str]) -> str:
    """Says how often what was asked; of the reads, those of what is not there too."""
    return ", ".join(f"{count} {name}" for name, count in sorted(asked.items(), reverse=True))


if __name__ == "__main__":
    main()
