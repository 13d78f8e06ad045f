"""Publishing: what is proposed is looked at, what passes is signed, a kill leaves no half."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shlex
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from signed import LABEL, ROW, TOLERANCE, Signed
from support.records import blob

from builders import gc
from builders.intake import check_candidate
from builders.keys import KeyRing
from builders.listing import SUPERSEDED_STAYS
from builders.publisher import check_apart
from zoo.digest import sha256_bytes
from zoo.errors import LicenceError
from zoo.index import ModelIndex, OwnFloor
from zoo.layout import record_key
from zoo.licences import check_licence
from zoo.mirror import Filter, mirror
from zoo.record import BuildRecord
from zoo.repository import Repository
from zoo.stores import LocalStore, open_store


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


def index(signed: Signed, model: str = "m") -> ModelIndex:
    return signed.client().model(model)


# What is refused


BAD: dict[str, Callable[[Signed], Any]] = {
    "is damaged": lambda s: s.blob_path(s.build()).write_bytes(b"ENGINE"),
    "is missing": lambda s: s.blob_path(s.build()).unlink(),
    "was not built for that": lambda s: s.build(targets=("cpu-ort1.31-fp32",)),
    "seeded: this is a release repository": lambda s: s.build(dry_run=True),
    "no LICENSE lies beside it": lambda s: s.build(files={}),
    "no provenance lies beside it": lambda s: beside(s, provenance=None),
    "is not about this engine": lambda s: s.build(files=s.build("twin").files),
    "LICENSE is not the text of apache-2.0": lambda s: beside(s, LICENSE=b"Do as you like."),
    "under 'cc-by-nc-4.0', which is not": lambda s: s.build(licence="cc-by-nc-4.0"),
    "it has 17,179,869,184 bytes": lambda s: endless(s.blob_path(s.build())),
    "has cosine 0.200000": lambda s: verified(s, worst_cosine=0.2),
    "relative error 0.5": lambda s: verified(s, worst_relative_error=0.5),
    "distance error 0.5": lambda s: verified(s, worst_distance_error=0.5),
    "50% of the nearest photos": lambda s: verified(s, neighbours=0.5),
    "2 rows are nearest to another": lambda s: verified(s, lost_rows=2),
    "3 rows hold NaN": lambda s: verified(s, finite=False, rows_not_finite=3),
    "can't be read: KeyError, 'lost_rows'": lambda s: verified(
        s, batches=[{name: value for name, value in ROW.items() if name != "lost_rows"}]
    ),
    "below those of fp32: cosine 0.5": lambda s: verified(
        s, tolerance={**TOLERANCE, "cosine": 0.5}
    ),
    "below those of fp32: distance_error": lambda s: verified(
        s, tolerance={**TOLERANCE, "distance_error": 0.5}
    ),
    "without a number": lambda s: verified(s, batches=[]),
}


def beside(signed: Signed, **papers: bytes | None) -> None:
    """Builds an engine beside which other papers lie, or none."""
    engine = blob(b"engine")
    files = signed.papers(signed.build_inputs("m", b"engine"), engine)
    for name, text in papers.items():
        del files[name]
        if text is not None:
            files[name] = signed.blob(text)
    signed.build(files=files)


def endless(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(2**34)  # 16 GiB of nothing


def verified(signed: Signed, **changes: Any) -> None:
    record = signed.build()
    body: dict[str, Any] = {"tolerance": TOLERANCE, "batches": [{**ROW, **changes}]}
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


LOOSER = {"fp32": OwnFloor(looser=("cosine 0.5 (the floor is 0.9999)",), reason="small photos")}


def release_loosely(signed: Signed, content: bytes = b"engine") -> BuildRecord:
    """Signs an engine that keeps no more than its manifest asks for, with a reason."""
    record = signed.build(content=content)
    body = {
        "batches": [{**ROW, "worst_cosine": 0.6, "worst_relative_error": 0.4}],
        "tolerance": {**TOLERANCE, "cosine": 0.5, "relative_error": 0.5},
    }
    time = "2026-01-02T00:00:00.000000Z"
    signed.attest(record.engine, key="5" * 64, body=body, time=time)
    signed.propose(record, own_floors=LOOSER)
    assert not signed.publish().refused
    return record


def test_what_looser_floors_let_through_is_proven_again_where_they_are_gone(signed: Signed) -> None:
    record = release_loosely(signed)
    signed.propose(record)
    (refused,) = signed.publish().refused.values()
    assert "floors below those of fp32" in str(refused)
    signed.attest(record.engine, key="6" * 64, time="2026-01-03T00:00:00.000000Z")
    signed.propose(record)
    assert not signed.publish().refused
    assert index(signed).own_floors == {}


def test_what_looser_floors_let_through_is_replaced_where_they_are_gone(signed: Signed) -> None:
    old = release_loosely(signed, b"old")
    new = signed.release(content=b"new")
    assert [entry.record for entry in index(signed).current] == [new.key]
    assert {entry.record for entry in index(signed).engines} == {old.key, new.key}


def test_a_record_under_another_name_is_refused(signed: Signed) -> None:
    key = signed.propose(record := signed.build())
    other = "5" * 64
    signed.path(f"records/m/{other}.json").write_bytes(record.to_json())
    path = signed.path(key)
    path.write_text(path.read_text().replace(record.key, other))
    assert "has inputs of another key" in signed.publish().refused[key]


@pytest.mark.parametrize("what", ["record", "candidate"])
def test_what_has_no_end_is_not_read_to_it(signed: Signed, what: str) -> None:
    key = signed.propose(record := signed.build())
    endless(signed.path(key if what == "candidate" else record_key("m", record.key)))
    assert "longer than the 16,777,216 bytes" in signed.publish().refused[key]


@pytest.mark.parametrize("digest", ["../" * 10 + "etc/passwd", "/etc/passwd", "s3://other/blob"])
@pytest.mark.parametrize("field", ["engine", "golden", "LICENSE"])
def test_a_record_that_points_outside_is_refused(signed: Signed, field: str, digest: str) -> None:
    key = signed.propose(record := signed.build())
    path = signed.path(record_key("m", record.key))
    data = json.loads(path.read_text())
    blob = data["files"][field] if field in data["files"] else data[field]
    blob["sha256"] = digest
    path.write_text(json.dumps(data))
    assert "String should match pattern" in signed.publish().refused[key]


def test_a_child_that_dies_or_babbles_refuses_its_candidate_alone(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed.check = check_apart
    key = signed.propose(signed.build())
    for code, words in (("import os; os.abort()", "failed (-6)"), ("print('ok')", "no answer")):
        with monkeypatch.context() as patch:
            launcher = signed.folder / "python"
            launcher.write_text(f"#!/bin/sh\nexec {sys.executable} -c {shlex.quote(code)}\n")
            launcher.chmod(0o755)
            patch.setattr(sys, "executable", str(launcher))
            assert words in signed.publish().refused[key]
        key = signed.propose(signed.build())
    assert not signed.publish().refused


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
    grace, soon = timedelta(days=7), datetime.now(timezone.utc) + timedelta(minutes=1)
    assert not gc.collect(signed.client(), grace, soon, delete=True).deleted
    copy = open_store(f"{s3}-mirror")
    assert mirror(signed.client(), copy, Filter()).engines == 3  # one is superseded
    assert mirror(signed.client(), copy, Filter()).copied == 0
    swept = gc.collect(signed.client(), grace, soon + timedelta(days=8), delete=True)
    assert all(key.startswith("metadata/") or "index" in key for key in swept.deleted)
    assert swept.deleted
    for store in (signed.store, copy):
        assert signed.pulled(signed.client(f"after {store.url[-6:]}", store=store)) == b"newer"


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


def test_an_engine_that_was_replaced_leaves_a_quiet_repository(signed: Signed) -> None:
    old, new = signed.release(content=b"old"), signed.release(content=b"new")
    other = signed.release("other", content=b"other")
    signed.later(seconds=SUPERSEDED_STAYS.total_seconds() - 60)
    assert signed.publish(refresh=True).models == []
    assert {entry.record for entry in index(signed).engines} == {old.key, new.key}
    signed.later(seconds=120)
    assert signed.publish().models == []
    assert signed.publish(refresh=True).models == ["m"]
    assert [entry.record for entry in index(signed).engines] == [new.key]
    assert [entry.record for entry in index(signed, "other").engines] == [other.key]


def test_who_publishes_is_told_in_time_that_a_root_will_end(signed: Signed) -> None:
    signed.release()
    assert signed.publish().ending == {}
    signed.later(days=310)
    assert set(signed.publish().ending) == {"root", "targets"}


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


# Kills


def test_a_kill_at_any_moment_leaves_no_visible_half(signed: Signed) -> None:
    """Kills builder and publisher at 100 moments; then one run completes what is left."""
    random.seed(0)
    signed.release("steady", b"steady engine")
    longest = 0.05
    killed = number = 0
    while killed < 100:  # those that were done before they were killed do not count
        number += 1
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
    last = signed.release("m", b"the last engine")
    assert [entry.record for entry in index(signed).current] == [last.key]
    assert not signed.repository.candidates()
    nothing_is_half(signed)


def nothing_is_half(signed: Signed) -> None:
    client = signed.client()
    for model in ("steady", "m"):  # those that are in no index yet too
        for record in signed.repository.records(model):
            assert all(signed.repository.has_blob(blob) for blob in record.blobs)
            assert signed.repository.attestations(record.engine.sha256)
    assert "steady" in {row.model for row in client.index().models}
    for row in client.index().models:
        for entry in client.model(row.model).engines:
            record = client.repository.listed_record(row.model, entry)
            for named in record.blobs:
                data = signed.find(f"blobs/sha256/*/{named.sha256}").read_bytes()
                assert sha256_bytes(data) == named.sha256
    assert Repository(signed.store).kind() == "release"
    assert LABEL in next(row for row in client.index().models if row.model == "steady").targets
