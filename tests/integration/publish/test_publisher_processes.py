"""Publishing with processes that race or die, and to a bucket."""

from __future__ import annotations

import multiprocessing
import os
import random
import shlex
import signal
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from support.goldens import assert_golden
from support.signed_repository import LABEL, Signed, run_nothing

from builders.publish import garbage
from builders.publish.candidate_check import check_candidate
from builders.publish.keys import KeyRing
from builders.publish.publisher import check_apart
from zoo.client.mirror import Filter, mirror
from zoo.repository.repository import Repository
from zoo.schema.index import ModelIndex
from zoo.schema.licences import LICENCE_FILE, licence_text
from zoo.stores import LocalStore, open_store
from zoo.util.digest import sha256_bytes


def index(signed: Signed, model: str = "m") -> ModelIndex:
    return signed.client().model(model)


def test_a_child_that_dies_or_babbles_refuses_its_candidate_alone(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed.check = check_apart
    key = signed.propose(signed.build())
    for code, end in (
        ("import os; os.abort()", "died"),
        ("print('ok')", "silent"),
        ("print('[]')", "list"),
        ("print('{}')", "no-index"),
    ):
        with monkeypatch.context() as patch:
            launcher = signed.folder / "python"
            launcher.write_text(f"#!/bin/sh\nexec {sys.executable} -c {shlex.quote(code)}\n")
            launcher.chmod(0o755)
            patch.setattr(sys, "executable", str(launcher))
            refused = signed.publish().refused[key].partition(": 1 validation error")[0]
            assert_golden(f"publish/check-{end}", refused, {key: "CANDIDATE"})
        key = signed.propose(signed.build())
    assert not signed.publish().refused


def test_a_candidate_is_looked_at_in_another_process(signed: Signed) -> None:
    signed.check = check_apart
    signed.release()
    (signed.folder / "store/candidates/n").mkdir(parents=True)
    broken = signed.path("candidates/n/x.json")
    broken.write_text("{")
    assert "candidates/n/x.json" in signed.publish().refused
    assert [row.model for row in signed.client().index().models] == ["m"]


def test_the_check_in_its_own_process_stores_corrected_documents(signed: Signed) -> None:
    signed.check = check_apart
    record = signed.release()
    signed.propose(record, licence="mit")
    assert not signed.publish().refused
    (entry,) = index(signed).engines
    documents = signed.client().documents("m", entry)
    assert documents[LICENCE_FILE].read_bytes() == licence_text("mit").encode()


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
    assert not garbage.collect(signed.client(), grace, soon, delete=True).deleted
    copy = open_store(f"{s3}-mirror")
    assert mirror(signed.client(), copy, Filter()).engines == 3  # one is superseded
    assert mirror(signed.client(), copy, Filter()).copied == 0
    swept = garbage.collect(signed.client(), grace, soon + timedelta(days=8), delete=True)
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
    signed.rerun = run_nothing
    signed.sign_as_builder()
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
    assert not signed.repository.candidates.waiting()


@pytest.mark.full
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
    assert not signed.repository.candidates.waiting()
    nothing_is_half(signed)


def nothing_is_half(signed: Signed) -> None:
    client = signed.client()
    for model in ("steady", "m"):  # those that are in no index yet too
        for record in signed.repository.records(model):
            assert all(signed.repository.blobs.has(blob) for blob in record.blobs)
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
