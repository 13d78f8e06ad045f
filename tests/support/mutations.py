"""Damaged files of every kind: each must be read, or refused with an error of this project.

``python -m support.mutations 10000 [KIND ...]`` runs so many mutations of each kind and prints what
became of them. The same number of the same kind is always the same mutation.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from unittest.mock import patch

import numpy as np

from builders.jobs.messages import BuildJob
from builders.jobs.output_formats import check_formats
from builders.jobs.progress import Event
from builders.jobs.results import read_result
from builders.photos.edge import EDGE_PICTURES
from builders.publish.keys import KeyRing, new_key
from builders.publish.tuf_files import MetadataFiles
from builders.publish.tuf_metadata import SignedMetadata
from builders.weights.locks import read_locks
from builders.worker.execute import job_of, read_job
from support import records
from support.caft import PREPROCESS, clusters, folder, photo, toy, write_cache
from support.paths import DATA, ROOT
from support.records import build_inputs
from support.signed_repository import Signed, no_passphrase
from support.toy_repository import toy_repository
from zoo.caft import FeatureCache, cache_features, train_head
from zoo.caft.head import Head
from zoo.caft.settings import Settings
from zoo.caft.sources import open_source
from zoo.caft.targets_file import targets_of
from zoo.caft.task import Task
from zoo.client.roots import read_root
from zoo.inference.preprocess import fit, open_photo
from zoo.runtime.header import read_header
from zoo.runtime.onnxruntime import open_session
from zoo.schema.manifest import load_manifest
from zoo.schema.records import Kind as RecordKind
from zoo.stores import MemoryStore
from zoo.util.errors import ZooError

LONGEST = 10.0
"""Seconds that reading a damaged file may take."""

_NUMBERS = (b"-1", b"0", b"1e999", b"9" * 30, b"9" * 5000, b"NaN", b"0x" + b"f" * 5000, b"-0.0")
_PIECES = (
    b"\0", b"\xff", b"\x1b[2J", b"null", b"[]", b"{}", b'""', b"'", b'"', b"\n", b"\\",
    b"\xed\xa0\x80", b"\\ud800", b"true", b"a.b.c.d = 1\n", b"[[x]]\n", b",",
)  # fmt: skip


class LateError(Exception):
    """A damaged file was still being read when the watchdog rang."""


def mutated(data: bytes, number: int, kind: str) -> bytes:
    """Returns a file's content with one to three changes."""
    chance = random.Random(f"{kind} {number}")
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = chance.choice(_CHANGES)(data, chance)
    return data


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 8)) if data else 0):
        # Half of the changes near the beginning, where headers are.
        end = len(data) if chance.random() < 0.5 else min(len(data), 256)
        changed[chance.randrange(end)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _insert(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(_PIECES) * chance.choice((1, 1, 3, 300)) + data[at:]


def _remove(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + data[at + chance.choice((1, 4, 64, 1000)) :]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data) + 1), chance.choice((4, 64, 1000))
    return data[:at] + data[at : at + size] * chance.choice((2, 50)) + data[at + size :]


def _nest(data: bytes, chance: random.Random) -> bytes:
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"{a=", b"}"), (b"a.", b"")))
    deep = chance.choice((10, 150, 5_000, 100_000))
    at = chance.randrange(len(data) + 1)
    return data[:at] + opening * deep + b"1" + closing * deep + data[at:]


def _number(data: bytes, chance: random.Random) -> bytes:
    places = [at for at in range(len(data)) if data[at : at + 1].isdigit()]
    if not places:
        return _flip(data, chance)
    at = chance.choice(places)
    return data[:at] + chance.choice(_NUMBERS) + data[at + 1 :]


_CHANGES = (_flip, _flip, _cut, _insert, _remove, _repeat, _nest, _number)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file.

    Attributes:
        file: A sound file, which is damaged in its place.
        use: Reads it as a command does.
    """

    file: Path
    use: Callable[[], object]


@dataclass(kw_only=True)
class Tally:
    """What became of the mutations of a kind.

    Attributes:
        outcomes: Number of mutations by outcome: ``read``, or the class of the error.
        faults: Those that are a fault of this project, with what happened.
        longest: Seconds that the slowest took.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    longest: float = 0.0


@contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """Raises an error in this thread after some seconds."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise LateError(f"after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(kind: Kind, name: str, numbers: range) -> Tally:
    """Runs some mutations of a kind."""
    sound, tally = kind.file.read_bytes(), Tally()
    kind.use()
    try:
        for number in numbers:
            kind.file.unlink()  # what has the last one mapped keeps it
            kind.file.write_bytes(mutated(sound, number, name))
            start = time.perf_counter()
            try:
                with watchdog(LONGEST):
                    kind.use()
                outcome = "read"
            except ZooError as error:
                outcome = type(error).__name__
                if not error.message.strip():
                    tally.faults.append(f"{name} {number}: {outcome} says nothing")
            except Exception as error:  # what this looks for
                outcome = f"FAULT {type(error).__name__}"
                where = traceback.extract_tb(error.__traceback__)[-1]
                tally.faults.append(
                    f"{name} {number}: {error!r:.200} ({where.filename}:{where.lineno})"
                )
            tally.outcomes[outcome] += 1
            tally.longest = max(tally.longest, time.perf_counter() - start)
    finally:
        kind.file.unlink(missing_ok=True)
        kind.file.write_bytes(sound)
    return tally


def kinds(top: Path) -> dict[str, Kind]:
    """Makes a sound file of each kind in a folder."""
    return {
        **_of_caches(top),
        **_of_data_sets(top),
        **_of_engines(top),
        **_of_repositories(top),
        **_of_the_farm(top),
        **_of_jobs(top),
        **_of_keys(top),
    }


def _of_caches(top: Path) -> dict[str, Kind]:
    data = folder(top / "photos", classes=2, each=2)
    cache_features(data, toy(), top / "cache")
    features, labels = clusters(classes=2, each=10)
    head = top / "head.safetensors"
    rows = FeatureCache(write_cache(top / "rows", features, labels))
    train_head(rows, Settings(epochs=1))[0].save(head)

    def use() -> None:
        cache = FeatureCache(top / "cache")
        cache.labelled()
        list(cache.names())
        np.asarray(cache.features).sum()
        cache.check()

    names = ("card.json", "samples.jsonl", "features.npy", "labels.npy", "hashes.npy", "sums.npy")
    found = {f"cache {name}": Kind(file=top / "cache" / name, use=use) for name in names}
    found["head"] = Kind(file=head, use=lambda: Head.load(head))
    return found


def _of_data_sets(top: Path) -> dict[str, Kind]:
    found = {}

    def reads(path: Path) -> Callable[[], object]:
        def use() -> None:
            for sample in open_source(path):
                with _photo_may_be_damaged():
                    open_photo(io.BytesIO(sample.read()))

        return use

    for suffix, mode in (
        ("tar", "w"),
        ("tar.gz", "w:gz"),
        ("tar.xz", "w:xz"),
        ("tar.bz2", "w:bz2"),
    ):
        path = top / f"data.{suffix}"
        with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
            for name, data in {
                "a.png": _encoded("PNG"), "a.json": b'{"label": "ox"}', "b.jpg": _encoded("JPEG"),
                "b.json": b'{"label": 1}', f"{'long' * 60}.png": _encoded("PNG"),
            }.items():  # fmt: skip
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        found[suffix] = Kind(file=path, use=reads(path))
    photo(1).save(top / "a.png")
    for name in ("list.csv", "list.txt"):
        between = "," if name.endswith("csv") else "\t"
        (top / name).write_text(f"a.png{between}cat\n# none\na.png{between}dog\n")
        found[name] = Kind(file=top / name, use=reads(top / name))
    targets = top / "targets.csv"
    targets.write_text("name,price\n" + "".join(f"{n}.jpg,{n}.5\n" for n in range(20)))
    found["labels of a cache"] = Kind(
        file=targets,
        use=lambda: targets_of(FeatureCache(top / "rows"), Task.REGRESSION, targets),
    )
    for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        path = top / f"photo.{form.lower()}"
        path.write_bytes(_encoded(form))
        found[form] = Kind(file=path, use=partial(_prepared, path))
    return found


def _prepared(path: Path) -> object:
    return fit(open_photo(path), PREPROCESS)


def _encoded(form: str) -> bytes:
    file = io.BytesIO()
    photo(2).save(file, form)
    return file.getvalue()


@contextmanager
def _photo_may_be_damaged() -> Iterator[None]:
    try:
        yield
    except (ZooError, OSError, ValueError):  # the pass leaves the photo out
        return


def _of_engines(top: Path) -> dict[str, Kind]:
    engine = top / "toy.onnx"
    engine.write_bytes((DATA / "toy.onnx").read_bytes())
    portable = top / "engine.rtx"
    portable.write_bytes(b"ftrt" + bytes(range(200)))
    return {
        "ONNX engine": Kind(file=engine, use=lambda: _run(engine)),
        "TensorRT header": Kind(
            file=portable, use=lambda: read_header(portable.read_bytes(), "engine")
        ),
    }


def _run(engine: Path) -> None:
    with open_session(
        engine, build_inputs(model="toy", preprocess=PREPROCESS), threads=1
    ) as session:
        session.features(np.zeros((1, *session.input_shape), np.float32))


def _of_repositories(top: Path) -> dict[str, Kind]:
    signed, record = toy_repository(_made(top / "signed"))

    def use() -> None:
        shutil.rmtree(top / "signed" / "home", ignore_errors=True)  # with what it has verified
        client = signed.client()
        client.index()
        client.model(record.inputs.model)

    store = top / "signed" / "store"
    files = {
        name: next(iter(sorted(store.glob(pattern))))
        for name, pattern in {
            "timestamp": "metadata/timestamp.json",
            "snapshot": "metadata/*.snapshot.json",
            "targets": "metadata/*.targets.json",
        }.items()
        if list(store.glob(pattern))
    }
    found = {f"repository {name}": Kind(file=path, use=use) for name, path in files.items()}
    found["repository.json"] = Kind(
        file=store / "repository.json", use=lambda: signed.repository.claim(RecordKind.RELEASE)
    )
    given = top / "root.json"
    given.write_bytes(signed.ring.root_file.read_bytes())
    return {
        **found,
        "root that is given": Kind(file=given, use=lambda: read_root(signed.store, str(given))),
    }


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def _of_the_farm(top: Path) -> dict[str, Kind]:
    manifest = sorted((ROOT / "manifests").glob("*.toml"))[0]
    copy = _made(top / "manifests") / manifest.name
    copy.write_bytes(manifest.read_bytes())
    locks = top / "manifests" / "manifests.lock"
    text = (ROOT / "manifests" / "manifests.lock").read_text()
    locks.write_text("\n\n".join(text.split("\n\n")[:4]) + "\n")
    golden = top / "golden.npz"
    np.savez(
        golden,
        images=np.zeros((2, 4, 4, 3), np.uint8),
        features=np.zeros((2, 8), np.float32),
        edge_features=np.zeros((len(EDGE_PICTURES), 8), np.float32),
    )
    events = top / "log.txt"
    line = Event(stage="build", done=1, total=2, note="layer").to_line()
    events.write_text(line * 3)

    def read_events() -> None:
        for text in events.read_text(errors="replace").splitlines():
            Event.from_line(text)

    return {
        "manifest": Kind(file=copy, use=lambda: load_manifest(copy)),
        "manifests.lock": Kind(file=locks, use=lambda: read_locks(top / "manifests")),
        "golden file": Kind(file=golden, use=lambda: check_formats({"golden.npz": "golden"}, top)),
        "worker's log": Kind(file=events, use=read_events),
    }


def _of_jobs(top: Path) -> dict[str, Kind]:
    asked = BuildJob(
        inputs=build_inputs(), onnx=records.blob(b"onnx"), parameters=1, verification=None,
        store="store",
    )  # fmt: skip
    answered = records.build_output(engine="engine")
    job, result = top / "job.json", top / "result.json"
    job.write_text(asked.model_dump_json(indent=1))
    result.write_text(answered.model_dump_json(indent=1))
    return {
        "job": Kind(file=job, use=lambda: job_of(read_job(job))),
        "result": Kind(file=result, use=lambda: read_result(result.read_bytes(), asked)),
    }


def _of_keys(top: Path) -> dict[str, Kind]:
    """Files beside the keys. Opening the metadata of a copy completes an interrupted rotation."""
    sound, copy, given = top / "interrupted", top / "copy of keys", _made(top / "beside keys")
    signed = Signed(sound)
    signed.release()
    metadata = SignedMetadata(signed.store, signed.ring)
    metadata.load()
    with patch.object(MetadataFiles, "complete"):  # killed right before it
        metadata.rotate("publisher", new_key(signed.ring.folder, "publisher", None))
    stored = {entry.key: signed.store.get(entry.key) for entry in signed.store.list("metadata/")}

    def opens(name: str) -> Callable[[], object]:
        def use() -> None:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(sound / "keys", copy)
            shutil.copy(given / name, copy / name)
            store = MemoryStore()
            for key, data in stored.items():
                store.put(key, data)
            assert SignedMetadata(store, KeyRing(copy, no_passphrase)).load()

        return use

    found = {}
    for name in ("keys.json", "rotation.json", "root.json", "seen.json"):
        shutil.copy(sound / "keys" / name, given)
        found[f"{name} beside keys"] = Kind(file=given / name, use=opens(name))
    return found


def main(arguments: list[str]) -> int:
    """Prints what became of each kind; the status is that of the faults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("kinds", nargs="*")
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    faults = 0
    with tempfile.TemporaryDirectory() as top:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for name, kind in kinds(Path(top)).items():
            if options.kinds and name not in options.kinds:
                continue
            tally = run(kind, name, range(options.count))
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
            print(
                f"{name}: {json.dumps(dict(tally.outcomes.most_common()))}, longest "
                f"{tally.longest:.2f} s, {grown} MiB above the start",
                flush=True,
            )
            for fault in tally.faults[:5]:
                print(f"  {fault}", flush=True)
            faults += len(tally.faults)
    print(f"{faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
