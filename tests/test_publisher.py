"""Publishing: what is proposed is looked at, what passes is signed, a kill leaves no half."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from signed import LABEL, Signed

from builders import gc
from builders.intake import check_candidate
from builders.keys import KeyRing
from builders.listing import SUPERSEDED_STAYS
from builders.publisher import check_apart
from zoo.digest import sha256_bytes
from zoo.errors import LicenceError, RepositoryError
from zoo.index import ModelIndex
from zoo.layout import blob_key
from zoo.licences import check_licence
from zoo.mirror import Filter, mirror
from zoo.record import Blob
from zoo.repository import Repository
from zoo.stores import LocalStore, open_store


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


def index(signed: Signed, model: str = "m") -> ModelIndex:
    return signed.client().model(model)


# What is refused


BAD: dict[str, Callable[[Signed], Any]] = {
    "is damaged": lambda s: blob_path(s, s.build()).write_bytes(b"ENGINE"),
    "is missing": lambda s: blob_path(s, s.build()).unlink(),
    "was not built for that": lambda s: s.build(targets=("cpu-ort1.31-fp32",)),
    "seeded: this is a release repository": lambda s: s.build(dry_run=True),
    "no LICENSE lies beside it": lambda s: s.build(files={}),
    "a cosine of 0.2": lambda s: verified(s, worst_cosine=0.2),
    "a relative error of 0.5": lambda s: verified(s, worst_relative_error=0.5),
    "below the floor of fp32": lambda s: verified(
        s, tolerance={"cosine": 0.5, "relative_error": 1}
    ),
    "without a number": lambda s: verified(s, batches=[]),
}


def blob_path(signed: Signed, record: Any) -> Path:
    return signed.find(f"blobs/sha256/*/{record.engine.sha256}")


def verified(signed: Signed, **changes: Any) -> None:
    record = signed.build()
    row = {"batch": 1, "worst_cosine": 0.99999, "worst_relative_error": 1e-6}
    body: dict[str, Any] = {"tolerance": {"cosine": 0.9999, "relative_error": 0.01}}
    body["batches"] = [{**row, **changes}]
    body |= {name: value for name, value in changes.items() if name in ("tolerance", "batches")}
    signed.attest(record.engine, body=body, time="2026-01-02T00:00:00.000000Z")


@pytest.mark.parametrize("reason", BAD)
def test_what_is_not_as_it_should_be_is_not_signed(signed: Signed, reason: str) -> None:
    good = signed.release("good")
    BAD[reason](signed)
    candidate = signed.propose(*signed.repository.records("m"))
    published = signed.publish()
    assert reason in published.refused[candidate]
    assert [row.model for row in signed.client().index().models] == ["good"]
    assert good.engine == index(signed, "good").engines[0].engine


def test_a_record_under_another_name_is_refused(signed: Signed) -> None:
    key = signed.propose(record := signed.build())
    other = "5" * 64
    signed.path(f"records/m/{other}.json").write_bytes(record.to_json())
    path = signed.path(key)
    path.write_text(path.read_text().replace(record.key, other))
    assert "has inputs of another key" in signed.publish().refused[key]


def test_weights_that_may_not_be_handed_out_are_refused(signed: Signed) -> None:
    check_licence("m", "apache-2.0")
    with pytest.raises(LicenceError, match="cc-by-nc"):
        check_licence("m", "cc-by-nc-4.0")
    key = signed.propose(signed.build(), licence="cc-by-nc-4.0")
    assert "not on the list" in signed.publish().refused[key]


def test_a_candidate_is_looked_at_in_another_process(signed: Signed) -> None:
    signed.check = check_apart
    signed.release()
    (signed.folder / "store/candidates/n").mkdir(parents=True)
    broken = signed.path("candidates/n/x.json")
    broken.write_text("{")
    assert "not a valid Candidate" in signed.publish().refused["candidates/n/x.json"]
    assert [row.model for row in signed.client().index().models] == ["m"]


# On a real S3 server


def test_a_bucket_is_published_to_read_mirrored_and_swept(s3: str, tmp_path: Path) -> None:
    signed = Signed(tmp_path / "s3", url=s3, check=check_apart)
    engine = bytes(range(256)) * 100_000
    signed.release("m", engine)
    signed.release("other", b"other engine")
    client = signed.client()
    assert signed.pulled(client) == engine
    local = LocalStore(tmp_path / "mirror")
    assert mirror(client, local, Filter(models=["m"])).engines == 1
    assert signed.pulled(signed.client("far", store=local)) == engine
    signed.release("m", b"newer")
    assert signed.pulled(signed.client("new")) == b"newer"
    assert not gc.collect(signed.client().repository, timedelta(days=7), signed.now).deleted


def publish_one(folder: Path, url: str, number: int) -> None:
    signed = object.__new__(Signed)
    signed.folder, signed.store = folder / str(number), open_store(url)
    signed.folder.mkdir()
    signed.repository, signed.check = Repository(signed.store), check_candidate
    signed.ring = KeyRing(folder / "keys", ask=lambda what: "")
    signed.now = datetime.now(timezone.utc)
    signed.propose(signed.build("m", b"the same engine"))
    signed.publish()


def test_publishers_race_for_one_record_on_a_bucket(s3: str, tmp_path: Path) -> None:
    signed = Signed(tmp_path, url=s3)
    signed.release("steady")
    context = multiprocessing.get_context("fork")
    racing = [context.Process(target=publish_one, args=(tmp_path, s3, n)) for n in range(4)]
    for one in racing:
        one.start()
    for one in racing:
        one.join(timeout=120)
    assert [one.exitcode for one in racing] == [0] * 4
    assert signed.pulled(signed.client()) == b"the same engine"
    assert len(list(signed.store.list("records/m/"))) == 1
    assert not signed.repository.candidates()


# What becomes of engines


def test_an_engine_that_is_replaced_stays_for_a_while(signed: Signed) -> None:
    old = signed.release(content=b"old")
    new = signed.release(content=b"new")
    entries = {entry.record: entry for entry in index(signed).engines}
    assert entries[new.key].superseded is None
    assert entries[old.key].superseded is not None
    assert [entry.record for entry in index(signed).current] == [new.key]
    assert signed.pulled(signed.client()) == b"new"
    signed.later(seconds=SUPERSEDED_STAYS.total_seconds() + 1)
    newest = signed.release(content=b"newest")
    assert {entry.record for entry in index(signed).engines} == {newest.key, new.key}


def test_an_engine_comes_back_when_it_is_proposed_again(signed: Signed) -> None:
    old = signed.release(content=b"old")
    signed.release(content=b"new")
    signed.propose(old)
    signed.publish()
    assert [entry.record for entry in index(signed).current] == [old.key]
    assert len(index(signed).engines) == 2


def test_signing_again_changes_nothing(signed: Signed) -> None:
    record = signed.release()
    before = snapshot(signed)
    signed.propose(record)
    assert signed.publish().models == ["m"]
    assert snapshot(signed) == before


def snapshot(signed: Signed) -> dict[str, bytes]:
    return {entry.key: signed.store.get(entry.key) for entry in signed.store.list("")}


def test_garbage_is_condemned_first_and_deleted_after_a_grace_time(signed: Signed) -> None:
    old = signed.release(content=b"old")
    signed.later(seconds=SUPERSEDED_STAYS.total_seconds() + 1)
    signed.release(content=b"new")
    signed.later(seconds=SUPERSEDED_STAYS.total_seconds() + 1)
    new = signed.release(content=b"newest")
    waiting = signed.propose(signed.build("other", b"other engine"))
    repository = signed.client(allow_stale=True).repository
    grace = timedelta(days=7)

    dry = gc.collect(repository, grace, signed.now)
    assert not dry.deleted
    assert f"records/m/{old.key}.json" in dry.condemned
    gc.collect(repository, grace, signed.now, delete=True)
    assert blob_path(signed, old).exists()
    done = gc.collect(repository, grace, signed.now + timedelta(days=8), delete=True)
    assert f"records/m/{old.key}.json" in done.deleted
    assert not list((signed.folder / "store").glob(f"blobs/sha256/*/{old.engine.sha256}"))
    assert signed.path(waiting).exists()
    assert signed.repository.has_blob(Blob(sha256=sha256_bytes(b"other engine"), size=12))
    assert signed.pulled(signed.client("after", allow_stale=True)) == b"newest"
    assert signed.repository.record("m", new.key) is not None
    assert not signed.publish().refused


def test_what_is_needed_again_is_spared(signed: Signed) -> None:
    loose = signed.blob(b"loose")
    signed.release()
    grace = timedelta(days=7)
    repository = signed.client().repository
    gc.collect(repository, grace, signed.now, delete=True)
    signed.release("other", content=b"loose")  # the same bytes, before their time has come
    done = gc.collect(repository, grace, signed.now + timedelta(days=8), delete=True)
    assert not any(loose.sha256 in key for key in done.deleted)
    assert signed.repository.has_blob(loose)


# Mirrors


def test_a_mirror_is_trusted_as_the_repository_is(signed: Signed) -> None:
    signed.release("m", b"engine")
    signed.release("other", b"other engine")
    copy = LocalStore(signed.folder / "mirror")
    client = signed.client()
    done = mirror(client, copy, Filter())
    assert done.engines == 2
    assert signed.pulled(signed.client("far", store=copy), "other") == b"other engine"
    assert mirror(client, copy, Filter()).copied == 0
    blob = copy.local_path(blob_key(sha256_bytes(b"other engine")))
    assert blob is not None
    blob.write_bytes(b"OTHER ENGINE")
    assert mirror(client, copy, Filter()).copied == 1
    assert blob.read_bytes() == b"other engine"
    signed.release("m", b"newer")
    mirror(signed.client("again"), copy, Filter())
    assert signed.pulled(signed.client("far", store=copy)) == b"newer"


def test_a_part_is_mirrored(signed: Signed) -> None:
    signed.release("m", b"engine")
    signed.release("other", b"other engine")
    copy = LocalStore(signed.folder / "mirror")
    mirror(signed.client(), copy, Filter(models=["m"]))
    far = signed.client("far", store=copy)
    assert signed.pulled(far) == b"engine"
    with pytest.raises(RepositoryError, match="signed and missing"):
        far.model("other")


def test_an_engine_that_was_changed_is_not_mirrored(signed: Signed) -> None:
    blob_path(signed, signed.release()).write_bytes(b"ENGINE")
    copy = LocalStore(signed.folder / "mirror")
    with pytest.raises(RepositoryError, match="damaged"):
        mirror(signed.client(), copy, Filter())
    assert copy.size("metadata/timestamp.json") is None


# Kills


def test_a_kill_at_any_moment_leaves_no_visible_half(signed: Signed) -> None:
    """Kills builder and publisher at 100 moments; then one run completes what is left."""
    random.seed(0)
    signed.release("steady", b"steady engine")
    longest = 0.05
    killed = 0
    for number in range(100):
        child = os.fork()
        if child == 0:  # pragma: no cover - killed
            status = 1
            try:
                signed.release("m", b"engine %d" % number * 1000)
                status = 0
            finally:
                os._exit(status)
        start = time.monotonic()
        time.sleep(random.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status):
            longest = max(0.005, longest * 0.95)
        else:
            longest = min(0.5, max(longest, (time.monotonic() - start) * 1.05))
        nothing_is_half(signed)
    assert killed > 30
    last = signed.release("m", b"the last engine")
    assert [entry.record for entry in index(signed).current] == [last.key]
    assert not signed.repository.candidates()
    nothing_is_half(signed)


def nothing_is_half(signed: Signed) -> None:
    client = signed.client()
    assert "steady" in {row.model for row in client.index().models}
    for row in client.index().models:
        for entry in client.model(row.model).engines:
            record = client.repository.listed_record(row.model, entry)
            for blob in (record.engine, record.golden, *record.files.values()):
                data = signed.find(f"blobs/sha256/*/{blob.sha256}").read_bytes()
                assert sha256_bytes(data) == blob.sha256
    assert Repository(signed.store).kind() == "release"
    assert LABEL in next(row for row in client.index().models if row.model == "steady").targets
