"""Measures what storing engines as chunks costs and saves, on engines that ``make zoo`` built.

Prints the tables in docs/results/chunks.md. A repository is published again, first with the oldest
engine of each target and then with the newest, with and without chunks; the newest is the same
network with the same weights, built again.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.s3_server import S3Server
from support.signed_repository import no_passphrase

from builders.publish.keys import KeyRing, make_keys
from builders.publish.publisher import Publisher
from builders.publish.tuf_metadata import SignedMetadata
from zoo.client import chunked
from zoo.client.client import Client
from zoo.client.trust import SignedIndex
from zoo.repository.repository import Repository
from zoo.repository.settings import set_chunks
from zoo.schema.index import Candidate, EngineEntry, ModelIndex
from zoo.schema.records import BuildRecord
from zoo.schema.targets import cell_of
from zoo.stores import LocalStore, ObjectStore, open_store
from zoo.stores.http_server import HttpServer
from zoo.util.cuts import cut
from zoo.util.digest import sha256_bytes
from zoo.util.zstd import compress

COPIED = ("blobs", "records", "attestations", "exports", "states")
"""What builders wrote, in a repository."""

MIB = 2**20


@dataclass
class Copy:
    """A copy of a repository that is published again.

    Attributes:
        folder: Where it is.
        source: The index of each model as it was published.
        processor: Seconds of processors that publishing took, of this process and its children.
    """

    folder: Path
    source: list[ModelIndex]
    processor: list[float] = field(default_factory=list)
    ring: KeyRing = field(init=False)

    def __post_init__(self) -> None:
        self.ring = make_keys(self.folder / "keys", None, ask=no_passphrase)

    @property
    def repository(self) -> Repository:
        """The copy."""
        return Repository(LocalStore(self.folder / "store"))

    def publish(self, newest: bool) -> None:
        """Proposes and signs one engine of each target."""
        repository = self.repository
        for index in self.source:
            records = chosen(repository.records(index.model), newest)
            card = index.card
            keys = tuple(dict.fromkeys(record.key for record in records))
            proposed = f"2026-01-01T00:00:0{int(newest)}.000000Z"
            repository.candidates.propose(Candidate(card=card, records=keys, proposed=proposed))
        before = _processor()
        done = Publisher(repository, SignedMetadata(repository.store, self.ring)).run()
        self.processor.append(_processor() - before)
        assert not done.refused, done.refused

    def client(self, home: Path, store: ObjectStore | None = None) -> Client:
        """A client with a folder of its own."""
        reading = store or self.repository.store
        signed = SignedIndex(reading, home / "verified", self.ring.root_file.read_bytes())
        return Client(Repository(reading, signed), home / "cache", signed)


def chosen(records: list[BuildRecord], newest: bool) -> list[BuildRecord]:
    """Returns the newest or the oldest engine of each target."""
    ordered = sorted(records, key=lambda record: record.created, reverse=not newest)
    return list({cell_of(record.targets[0]): record for record in ordered}.values())


def copied(source: Path, folder: Path, *, chunks: bool) -> Copy:
    """Copies what builders wrote."""
    repository = Repository(LocalStore(source))
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / "store" / name)
    (folder / "store").mkdir(parents=True, exist_ok=True)
    made = Copy(folder, list(repository.model_indexes()))
    kind = repository.kind()
    assert kind is not None
    made.repository.claim(kind)
    set_chunks(made.repository, chunks)
    return made


def main() -> None:
    """Runs the measurements and prints their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chunks", description=__doc__)
    parser.add_argument("stores", nargs="+", type=Path, help="folders of repositories")
    parser.add_argument("--rounds", type=int, default=7, help="number of pulls of each kind")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, S3Server(Path(name) / "server") as server:
        os.environ.update(server.environment)
        for number, source in enumerate(options.stores):
            folder = Path(name) / str(number)
            plain = copied(source, folder / "plain", chunks=False)
            chunks = copied(source, folder / "chunks", chunks=True)
            plain.publish(newest=False)
            chunks.publish(newest=False)
            first = {
                (index.model, cell_of(entry.targets[0])): entry
                for index in chunks.client(folder / "first").repository.model_indexes()
                for entry in index.current
            }
            shares = onnx_shares(chunks, folder)
            plain.publish(newest=True)
            chunks.publish(newest=True)
            print(f"## {', '.join(index.model for index in chunks.source)}\n")
            print(storage(chunks), "\n")
            print(updates(chunks, folder / "updates", first, shares), "\n")
            ratio = sum(chunks.processor) / sum(plain.processor)
            print(
                f"Publishing took {sum(plain.processor):.2f} s of a processor without chunks and "
                f"{sum(chunks.processor):.2f} s with them: {ratio:.2f} times\n"
            )
            print(cold(chunks, folder, server, options.rounds), "\n", flush=True)


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def onnx_shares(copy: Copy, folder: Path) -> dict[str, float]:
    """Returns by engine which share of its bytes is in chunks of its ONNX."""
    shares = {}
    for index in copy.source:
        for record in copy.repository.records(index.model):
            onnx = copy.repository.blobs.find(record.inputs.onnx)
            if onnx is None:
                continue
            known = {data for _, data in cut(copy.repository.blobs.whole(onnx, folder))}
            engine = copy.repository.blobs.whole(record.engine, folder)
            shared = sum(len(data) for _, data in cut(engine) if data in known)
            shares[record.engine.sha256] = shared / record.engine.size
    return shares


def storage(copy: Copy) -> str:
    """Returns the table of stored bytes."""
    repository = copy.repository
    engines: dict[str, int] = {}
    lists: dict[str, int] = {}
    packs: dict[str, int] = {}
    for index in repository.model_indexes():
        for entry in index.engines:
            assert entry.chunks is not None
            engines[entry.engine.sha256] = entry.engine.size
            list_blob, *pack_blobs = repository.chunks.blobs_of(entry.engine, entry.chunks)
            lists[list_blob.sha256] = list_blob.size
            packs |= {pack.sha256: pack.size for pack in pack_blobs}
    exports = {
        record.onnx.sha256: record.onnx
        for index in copy.source
        for entry in repository.store.list(f"exports/{index.model}/")
        if (record := repository.any_export(index.model, Path(entry.key).stem)) is not None
    }
    whole, chunked_size = sum(engines.values()), sum(lists.values()) + sum(packs.values())
    onnx = sum(blob.size for blob in exports.values())
    more = new_bytes(repository, copy.source, exports.values())
    both = (chunked_size + more) / (whole + onnx)
    return "\n".join(
        [
            "| stored | MiB | of the engines |",
            "| --- | ---: | ---: |",
            f"| {len(engines)} engines, whole | {whole / MIB:.1f} | 1 |",
            f"| their chunks: {len(packs)} packs, {len(lists)} lists "
            f"({sum(lists.values()) / MIB:.2f} MiB) | {chunked_size / MIB:.1f} |"
            f" {chunked_size / whole:.3f} |",
            f"| both, as stored now | {(whole + chunked_size) / MIB:.1f} |"
            f" {(whole + chunked_size) / whole:.3f} |",
            f"| {len(exports)} ONNX files, whole | {onnx / MIB:.1f} | |",
            f"| computed, not a mode: chunks alone of engines and ONNX, of both whole | |"
            f" {both:.3f} |",
        ]
    )


def new_bytes(repository: Repository, source: list[ModelIndex], exports: Any) -> int:
    """Returns the compressed size of the chunks of ONNX files that no engine has."""
    known = set()
    for index in repository.model_indexes():
        for entry in index.engines:
            assert entry.chunks is not None
            listed = repository.chunks.list_of(entry.engine, entry.chunks)
            known |= {chunk.sha256 for chunk in listed.chunks}
    size = 0
    for blob in exports:
        for _, data in cut(repository.blobs.whole(blob, Path())):
            if (digest := sha256_bytes(data)) not in known:
                known.add(digest)
                size += len(compress(data, 3))
    return size


def updates(
    copy: Copy, home: Path, first: dict[tuple[str, str], EngineEntry], shares: dict[str, float]
) -> str:
    """Updates clients that have an engine's older one; returns the table of what they fetched."""
    client = copy.client(home)
    rows = [
        "| engine | MiB | in chunks of its ONNX | fetched, having the older | of its bytes |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in client.index().models:
        for entry in client.model(row.model).current:
            size, before = entry.engine.size, first.get((row.model, cell_of(entry.targets[0])))
            name = f"{row.model} {entry.targets[0]}"
            share = shares.get(entry.engine.sha256)
            stated = "" if share is None else f"{share:.2f}"
            if before is None or before.engine == entry.engine:
                rows.append(f"| {name} | {size / MIB:.1f} | {stated} | the same bytes | 0 |")
                continue
            updated = copy.client(home / entry.engine.sha256)
            updated.pull(row.model, before)
            pulled = updated.pull(row.model, entry)
            assert pulled.transfer is not None
            fetched = pulled.transfer.fetched
            rows.append(
                f"| {name} | {size / MIB:.1f} | {stated} | {fetched / MIB:.2f} MiB |"
                f" {fetched / size:.3f} |"
            )
    return "\n".join(rows)


@contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """Counts the requests to HTTP servers."""
    count: Counter[str] = Counter()
    original = HttpServer.request

    def request(self: HttpServer, *arguments: Any, **options: Any) -> Any:
        count["requests"] += 1
        return original(self, *arguments, **options)

    HttpServer.request = request  # type: ignore[method-assign]
    try:
        yield count
    finally:
        HttpServer.request = original  # type: ignore[method-assign]


def cold(copy: Copy, folder: Path, server: S3Server, rounds: int) -> str:
    """Pulls engines into empty caches from a server on loopback; returns the table."""
    url = server.new_url()
    upload(copy.repository.store, open_store(url))
    kinds: dict[str, Callable[[], None]] = {
        "whole": lambda: None,
        "default": lambda: None,
        "chunks": lambda: setattr(chunked, "WORTH", 100.0),
    }
    rows = [
        "| engine, into an empty cache | requests, of the whole's | bytes | rate | rate per second"
        " of the client's processor | rate with chunks in any case | the same, per second of the"
        " processor |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in copy.client(folder / "reader").index().models:
        for entry in copy.client(folder / "reader").model(row.model).current:
            seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
            processor: dict[str, list[float]] = {kind: [] for kind in kinds}
            requests: dict[str, int] = {}
            fetched: dict[str, int] = {}
            for _ in range(rounds):
                for kind in kinds:
                    worth = chunked.WORTH
                    kinds[kind]()
                    with tempfile.TemporaryDirectory() as home, counted_requests() as count:
                        client = copy.client(Path(home), open_store(server.http_url(url)))
                        begun, used = time.perf_counter(), time.process_time()
                        client.model(row.model)
                        pulled = client.pull(row.model, entry, whole=kind == "whole")
                        seconds[kind].append(time.perf_counter() - begun)
                        processor[kind].append(time.process_time() - used)
                    chunked.WORTH = worth
                    assert pulled.transfer is not None
                    requests[kind], fetched[kind] = count["requests"], pulled.transfer.fetched
            rows.append(
                f"| {row.model} {entry.targets[0]} | {requests['default']} of {requests['whole']}"
                f" (chunks {requests['chunks']}) | {fetched['default'] / entry.engine.size:.2f}"
                f" (chunks {fetched['chunks'] / entry.engine.size:.2f}) |"
                f" {rates(seconds, 'default')} | {rates(processor, 'default')} |"
                f" {rates(seconds, 'chunks')} | {rates(processor, 'chunks')} |"
            )
    return "\n".join(rows)


def rates(seconds: dict[str, list[float]], kind: str) -> str:
    """Returns the rate of a kind of pull in terms of that of the whole: median and range."""
    ratios = [whole / own for whole, own in zip(seconds["whole"], seconds[kind], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def upload(store: ObjectStore, destination: ObjectStore) -> None:
    """Copies all objects of a local store."""
    for entry in store.list(""):
        path = store.local_path(entry.key)
        assert path is not None
        destination.put(entry.key, path.read_bytes())


if __name__ == "__main__":
    main()
