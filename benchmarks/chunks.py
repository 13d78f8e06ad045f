"""Measures what storing engines as chunks costs and saves, on engines that ``make zoo`` built.

Prints the tables in docs/results/chunks.md. A repository is published again, first with the oldest
engine of each target and then with the newest: whole, also as chunks, and as chunks only. Where a
network was built again, the newest engine has the same weights.
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
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.s3_server import S3Server
from support.signed_repository import no_passphrase

from builders.publish.garbage import collect
from builders.publish.keys import KeyRing, load_builder, make_keys
from builders.publish.publisher import Publisher
from builders.publish.signatures import sign_candidate
from builders.publish.tuf_metadata import SignedMetadata
from zoo.client.client import Client
from zoo.client.trust import SignedIndex
from zoo.repository.repair import named_blobs
from zoo.repository.repository import Repository
from zoo.schema.chunks import Chunking
from zoo.schema.index import Candidate, EngineEntry, ModelIndex
from zoo.schema.layout import CHUNKED
from zoo.schema.records import BuildRecord
from zoo.schema.targets import cell_of
from zoo.stores import LocalStore, ObjectStore, open_store
from zoo.stores.http_server import HttpServer
from zoo.util.cuts import cut

COPIED = ("blobs", "records", "attestations", "exports", "states")
"""What builders wrote, in a repository."""

MIB = 2**20


@dataclass
class Copy:
    """A copy of a repository that is published again.

    Attributes:
        folder: Where it is.
        chunking: How it is published.
        source: The index of each model as it was published.
        builder: Key of the builder that attested what is copied; it signs what is proposed.
        processor: Seconds of processors that publishing took, of this process and its children.
    """

    folder: Path
    chunking: Chunking
    source: list[ModelIndex]
    builder: Path
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
        key = load_builder(self.builder, no_passphrase)
        repository.candidates.sign = lambda candidate: sign_candidate(candidate, key)
        for index in self.source:
            records = chosen(repository.records(index.model), newest)
            card = index.card
            keys = tuple(dict.fromkeys(record.key for record in records))
            proposed = f"2026-01-01T00:00:0{int(newest)}.000000Z"
            repository.candidates.propose(Candidate(card=card, records=keys, proposed=proposed))
        before = _processor()
        metadata = SignedMetadata(repository.store, self.ring)
        done = Publisher(repository, metadata).run(chunking=self.chunking)
        self.processor.append(_processor() - before)
        assert not done.refused, done.refused

    def collect(self) -> None:
        """Deletes what is not needed, as after a grace period."""
        for days in (8, 16):
            now = datetime.now(timezone.utc) + timedelta(days=days)
            client = self.client(self.folder / "collector")
            collect(client, timedelta(days=7), now, delete=True)

    def client(self, home: Path, store: ObjectStore | None = None) -> Client:
        """A client with a folder of its own."""
        reading = store or self.repository.store
        signed = SignedIndex(reading, home / "verified", self.ring.root_file.read_bytes())
        return Client(Repository(reading, signed), home / "cache", signed)


def of_others(repository: Repository, models: set[str]) -> Callable[[str, list[str]], list[str]]:
    """Returns what `shutil.copytree` is to leave out: large files of other models."""
    named = named_blobs(repository)
    wanted = {blob.sha256 for key, blob in named if key.split("/")[1] in models}

    def left_out(folder: str, names: list[str]) -> list[str]:
        if Path(folder).name in ("records", "exports", "states"):
            return [name for name in names if name not in models]
        paths = {name: Path(folder) / name for name in names if name not in wanted}
        return [n for n, path in paths.items() if path.is_file() and path.stat().st_size > MIB]

    return left_out


def chosen(records: list[BuildRecord], newest: bool) -> list[BuildRecord]:
    """Returns the newest or the oldest engine of each target."""
    ordered = sorted(records, key=lambda record: record.created, reverse=not newest)
    return list({cell_of(record.targets[0]): record for record in ordered}.values())


def copied(source: Path, folder: Path, chunking: Chunking, models: set[str]) -> Copy:
    """Copies what builders wrote; some models of it if any are named."""
    repository = Repository(LocalStore(source))
    ignored = of_others(repository, models) if models else None
    for name in COPIED:
        if (source / name).is_dir():
            # Links: files of a store are never written to once they are there.
            shutil.copytree(
                source / name, folder / "store" / name, copy_function=os.link, ignore=ignored
            )
    (folder / "store").mkdir(parents=True, exist_ok=True)
    keys = source.with_name(f"{source.name}.keys")
    indexes = [one for one in repository.model_indexes() if not models or one.model in models]
    made = Copy(folder, chunking, indexes, keys / "builder.pem")
    kind = repository.kind()
    assert kind is not None
    made.repository.claim(kind)
    # Who attested what is copied is registered in the copy as well.
    shutil.copy(keys / "builders.json", made.ring.builders_file)
    return made


def main() -> None:
    """Runs the measurements and prints their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chunks", description=__doc__)
    parser.add_argument("stores", nargs="+", type=Path, help="folders of repositories")
    parser.add_argument("--rounds", type=int, default=7, help="number of pulls of each kind, or 0")
    parser.add_argument(
        "--models", type=names_of, default=set(), help="ids, separated by commas (default: all)"
    )
    options = parser.parse_args()
    if options.rounds < 0:
        parser.error("--rounds must be 0 or more")
    for store in options.stores:
        check(parser, store, options.models)
    # Beside the repository, whose files are linked: that works within one file system.
    beside = options.stores[0].resolve().parent
    with (
        tempfile.TemporaryDirectory(dir=beside) as name,
        S3Server(Path(name) / "server") as server,
    ):
        os.environ.update(server.environment)
        for number, source in enumerate(options.stores):
            folder = Path(name) / str(number)
            plain, chunks, only = copies = [
                copied(source, folder / chunking, chunking, options.models) for chunking in Chunking
            ]
            for copy in copies:
                copy.publish(newest=False)
            first = {
                (index.model, cell_of(entry.targets[0])): entry
                for index in chunks.client(folder / "first").repository.model_indexes()
                for entry in index.current
            }
            shares = onnx_shares(chunks, folder)
            for copy in copies:
                copy.publish(newest=True)
                copy.collect()
            print(f"## {', '.join(index.model for index in chunks.source)}\n")
            print(storage(copies), "\n")
            print(updates(only, folder / "updates", first, shares), "\n", flush=True)
            for copy in (chunks, only):
                ratio = sum(copy.processor) / sum(plain.processor)
                print(
                    f"Publishing took {sum(plain.processor):.2f} s of a processor without chunks "
                    f"and {sum(copy.processor):.2f} s with chunks {copy.chunking}: {ratio:.2f} "
                    "times\n"
                )
            if options.rounds:
                print(cold(copies, folder, server, options.rounds), "\n", flush=True)


def check(parser: argparse.ArgumentParser, store: Path, models: set[str]) -> None:
    """Ends with an error if a repository can't be measured."""
    index = Repository(LocalStore(store)).index() if store.is_dir() else None
    if index is None:
        parser.error(f"{store}: nothing is published in this folder")
    if index.chunks is not Chunking.OFF:
        parser.error(f"{store} stores chunks already; zoo-farm chunks off stores engines whole")
    if unknown := sorted(models - {row.model for row in index.models}):
        parser.error(f"{store} has no model '{unknown[0]}'")


def names_of(text: str) -> set[str]:
    """Returns names that are separated by commas."""
    return set(filter(None, text.split(",")))


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


def storage(copies: list[Copy]) -> str:
    """Returns the table of stored bytes: of engines and ONNX, and of everything."""
    rows = [
        "| chunks | engines and ONNX, MiB | share | everything, MiB | share |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    counts = ""
    sizes = [stored(copy) for copy in copies]
    for copy, (weights, everything) in zip(copies, sizes, strict=True):
        shares = [weights / sizes[0][0], everything / sizes[0][1]]
        rows.append(
            f"| {copy.chunking} | {weights / MIB:.1f} | {shares[0]:.3f} | {everything / MIB:.1f} |"
            f" {shares[1]:.3f} |"
        )
        engines, onnx = weighty(copy)
        counts = f"{len(engines)} engines and {len(onnx)} ONNX files"
    return "\n".join([f"{counts}, superseded ones included:", "", *rows])


def weighty(copy: Copy) -> tuple[set[str], set[str]]:
    """Returns the digests of the engines in the index, and of the ONNX exports that are stored."""
    repository = copy.repository
    engines = {e.engine.sha256 for index in repository.model_indexes() for e in index.engines}
    exports = (
        repository.any_export(index.model, Path(entry.key).stem)
        for index in copy.source
        for entry in repository.store.list(f"exports/{index.model}/")
    )
    return engines, {export.onnx.sha256 for export in exports if export is not None}


def stored(copy: Copy) -> tuple[int, int]:
    """Returns the bytes of engines and ONNX, chunks included, and of the whole repository."""
    repository = copy.repository
    engines, onnx = weighty(copy)
    digests = engines | onnx
    for index in repository.model_indexes():
        lists = {e.engine.sha256: (e.engine, e.chunks) for e in index.engines if e.chunks}
        for sha256, listed in index.onnx_chunks.items():
            found = repository.blobs.find(sha256)
            assert found is not None
            lists[sha256] = (found, listed)
        for whole, named in lists.values():
            digests |= {blob.sha256 for blob in repository.chunks.blobs_of(whole, named)}
    sizes = {Path(entry.key).name: entry.size for entry in repository.store.list("")}
    pieces = sum(entry.size for entry in repository.store.list(CHUNKED))
    return sum(sizes.get(sha256, 0) for sha256 in digests) + pieces, sum(
        entry.size for entry in repository.store.list("")
    )


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
            with tempfile.TemporaryDirectory(dir=copy.folder) as client_home:
                updated = copy.client(Path(client_home))
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


def cold(copies: list[Copy], folder: Path, server: S3Server, rounds: int) -> str:
    """Pulls engines into empty caches from a server on loopback; returns the table."""
    urls = []
    for copy in copies:
        urls.append(url := server.new_url())
        upload(copy.repository.store, open_store(url))
    rows = [
        "| engine, into an empty cache | chunks on: requests | bytes | rate | per second of the"
        " processor | chunks only: requests | bytes | rate | per second of the processor |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    plain = copies[0].client(folder / "reader")
    for row in plain.index().models:
        for entry in plain.model(model := row.model).current:
            pulls: dict[Chunking, list[Pull]] = {copy.chunking: [] for copy in copies}
            for _ in range(rounds):
                for copy, url in zip(copies, urls, strict=True):
                    store = open_store(server.http_url(url))
                    pulls[copy.chunking].append(pull(copy, store, model, entry.engine.sha256))
            cells = "".join(
                compared(pulls[Chunking.OFF], pulls[chunking], entry.engine.size)
                for chunking in (Chunking.ON, Chunking.ONLY)
            )
            rows.append(f"| {model} {entry.targets[0]} |{cells}")
    return "\n".join(rows)


@dataclass(frozen=True)
class Pull:
    """What a pull took.

    Attributes:
        seconds: Time.
        processor: Seconds of this process's processors.
        requests: Number of requests.
        fetched: Bytes.
    """

    seconds: float
    processor: float
    requests: int
    fetched: int


def pull(copy: Copy, store: ObjectStore, model: str, engine: str) -> Pull:
    """Pulls an engine into an empty cache."""
    with tempfile.TemporaryDirectory() as home, counted_requests() as count:
        client = copy.client(Path(home), store)
        begun, used = time.perf_counter(), time.process_time()
        (entry,) = (e for e in client.model(model).current if e.engine.sha256 == engine)
        pulled = client.pull(model, entry)
        seconds, processor = time.perf_counter() - begun, time.process_time() - used
    assert pulled.transfer is not None
    return Pull(seconds, processor, count["requests"], pulled.transfer.fetched)


def compared(whole: list[Pull], own: list[Pull], size: int) -> str:
    """Returns four cells: requests, bytes and rates of pulls in terms of those of the whole."""
    fetched = own[-1].fetched / size
    return (
        f" {own[-1].requests} of {whole[-1].requests} | {fetched:.2f} |"
        f" {rates([p.seconds for p in whole], [p.seconds for p in own])} |"
        f" {rates([p.processor for p in whole], [p.processor for p in own])} |"
    )


def rates(whole: list[float], own: list[float]) -> str:
    """Returns the rate of pulls in terms of those of the whole: median and range."""
    ratios = [one / other for one, other in zip(whole, own, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def upload(store: ObjectStore, destination: ObjectStore) -> None:
    """Copies all objects of a local store."""
    for entry in store.list(""):
        path = store.local_path(entry.key)
        assert path is not None
        destination.put(entry.key, path.read_bytes())


if __name__ == "__main__":
    main()
