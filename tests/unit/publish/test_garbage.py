"""Garbage: what nothing needs goes after a while, and nothing that anybody needs."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from support.commands import ZooFarm
from support.goldens import assert_golden, raises_golden
from support.records import blob
from support.signed_repository import Signed, release_of_later_version

from builders.publish import garbage
from builders.publish.index import SUPERSEDED_STAYS
from builders.publish.tuf_metadata import SignedMetadata
from zoo.schema.index import Index, ModelIndex, index_row
from zoo.schema.layout import export_key, record_key
from zoo.util.errors import TrustError

GRACE = timedelta(days=7)


def sweep(signed: Signed) -> garbage.Garbage:
    """Condemns, and eight days later deletes, what nothing needs."""
    client = signed.client("sweeper")
    now = max(signed.now, datetime.now(timezone.utc))
    garbage.collect(client, GRACE, now, delete=True)
    return garbage.collect(client, GRACE, now + timedelta(days=8), delete=True)


def forget_old(signed: Signed) -> Any:
    """Publishes an engine that is out of the index by now; returns its record."""
    old = signed.release(content=b"old")
    signed.release(content=b"new")
    signed.later(seconds=SUPERSEDED_STAYS.total_seconds() + 1)
    signed.publish(refresh=True)
    return old


def test_garbage_is_condemned_first_and_deleted_after_a_grace_time(signed: Signed) -> None:
    old = forget_old(signed)
    new = signed.release(content=b"newest")
    waiting = signed.propose(signed.build("other", b"other engine"))
    client = signed.client()

    dry = garbage.collect(client, GRACE, signed.now)
    assert not dry.deleted
    assert f"records/m/{old.key}.json" in dry.condemned
    garbage.collect(client, GRACE, signed.now, delete=True)
    assert signed.blob_path(old).exists()
    done = garbage.collect(client, GRACE, signed.now + timedelta(days=8), delete=True)
    assert f"records/m/{old.key}.json" in done.deleted
    assert not list((signed.folder / "store").glob(f"blobs/sha256/*/{old.engine.sha256}"))
    assert signed.path(waiting).exists()
    assert signed.repository.blobs.has(blob(b"other engine"))
    assert signed.pulled(signed.client("after")) == b"newest"
    assert signed.repository.record("m", new.key) is not None
    assert not signed.publish().refused


def test_what_is_needed_again_is_spared(signed: Signed) -> None:
    loose = signed.blob(b"loose")
    signed.release()
    client = signed.client()
    garbage.collect(client, GRACE, signed.now, delete=True)
    signed.release("other", content=b"loose")  # the same bytes, before their time has come
    done = garbage.collect(client, GRACE, signed.now + timedelta(days=8), delete=True)
    assert not any(loose.sha256 in key for key in done.deleted)
    assert signed.repository.blobs.has(loose)


def test_what_was_built_of_old_bytes_is_spared_until_it_is_proposed(signed: Signed) -> None:
    loose = signed.blob(b"loose")
    signed.release()
    client = signed.client()
    # Long ago the blob was condemned; an hour ago an engine was built that has the same bytes.
    long_ago = signed.now - timedelta(days=30)
    signed.path("gc").mkdir()
    key = f"blobs/sha256/{loose.sha256[:2]}/{loose.sha256}"
    signed.path("gc/condemned.json").write_text(json.dumps({key: long_ago.isoformat()}))
    age(signed, key, days=40)
    record = signed.build("other", b"loose")
    done = garbage.collect(client, GRACE, signed.now, delete=True)
    assert key not in done.condemned
    signed.propose(record)
    assert not signed.publish().refused
    assert signed.pulled(signed.client("new"), "other") == b"loose"


def age(signed: Signed, key: str, days: float) -> None:
    """Makes an object look as if it had been written long ago."""
    then = (signed.now - timedelta(days=days)).timestamp()
    os.utime(signed.path(key), (then, then))


def test_what_was_signed_while_it_waited_for_its_turn_is_spared(signed: Signed) -> None:
    old = forget_old(signed)
    client = signed.client()
    client.index()  # read before somebody brings the old engine back
    garbage.collect(client, GRACE, signed.now, delete=True)
    signed.propose(old)
    signed.publish()
    done = garbage.collect(client, GRACE, signed.now + timedelta(days=8), delete=True)
    assert record_key("m", old.key) not in done.deleted
    assert signed.pulled(signed.client("after")) == b"old"


def test_nothing_is_swept_by_an_index_that_is_expired(signed: Signed) -> None:
    signed.later(days=-6, hours=-23, minutes=-59, seconds=-55)
    signed.release()
    client = signed.client()
    client.index()
    client.model("m")
    signed.later(days=-1)
    signed.publish(refresh=True)  # a timestamp that is over
    with raises_golden(TrustError, "publish/expired-index"):
        garbage.collect(client, GRACE, signed.now + timedelta(days=30), delete=True)


def test_metadata_that_is_over_goes_and_roots_stay(signed: Signed) -> None:
    first_root = signed.ring.folder / "first.json"
    for number in range(4):
        signed.release(content=b"engine %d" % number)
    shutil.copy(signed.ring.root_file, first_root)
    metadata = SignedMetadata(signed.store, signed.ring)
    assert metadata.load()
    metadata.rotate("publisher", signed.ring.entry("publisher"))
    before = {entry.key for entry in signed.store.list("metadata/")}
    all_models = [entry.key for entry in signed.store.list("") if "/" not in entry.key]
    assert len([key for key in all_models if key.endswith(".index.json")]) > 1

    sweep(signed)
    after = {entry.key for entry in signed.store.list("metadata/")}
    assert {"metadata/1.root.json", "metadata/2.root.json", "metadata/timestamp.json"} <= after
    assert len([key for key in before if ".snapshot." in key]) > 1
    assert len([key for key in after if ".snapshot." in key]) == 1
    names = [key.partition(".")[2] for key in after if ".root." not in key and ".bin-" in key]
    assert len(names) == len(set(names)) == signed.bins
    left = [entry.key for entry in signed.store.list("") if entry.key.endswith(".index.json")]
    assert len([key for key in left if "/" not in key]) == 1
    reader = signed.client("new", root=first_root.read_bytes())
    assert signed.pulled(reader) == b"engine 3"
    signed.release(content=b"one more")
    assert signed.pulled(signed.client()) == b"one more"


def test_an_index_that_another_version_wrote_is_spared(signed: Signed) -> None:
    signed.release()
    signed.publish()
    metadata = SignedMetadata(signed.store, signed.ring)
    assert metadata.load()
    written = metadata.read("index/m.json")
    assert written is not None
    other = json.dumps({**json.loads(written), "from_the_future": 1}).encode()
    row = index_row(ModelIndex.model_validate_json(other), other)
    metadata.publish(
        {"index/m.json": other, "index.json": Index(kind="release", models=(row,)).to_json()}
    )
    sweep(signed)
    assert signed.pulled(signed.client("new")) == b"engine"


def test_what_a_later_version_built_is_kept_and_listed(
    signed: Signed, zoo_farm: ZooFarm, capsys: pytest.CaptureFixture[str]
) -> None:
    signed.release()
    later = release_of_later_version(signed)
    swept = sweep(signed)
    assert not any(blob.sha256 in key for blob in later.blobs for key in swept.deleted)
    for blob_ in (*later.blobs, blob(b"fp4 onnx")):
        assert signed.repository.blobs.has(blob_)
    exported = export_key("m", later.export_key)
    assert swept.later == [exported, record_key("m", later.key)]
    assert signed.path(exported).exists()
    shutil.copytree(signed.ring.folder, f"{signed.store.url}.keys")  # trusted without asking
    assert zoo_farm("gc", "--store", signed.store.url) == 0
    assert_golden("publish/gc-of-later-version", capsys.readouterr().out)


def test_what_a_later_version_proposes_is_kept(signed: Signed) -> None:
    signed.release()
    record = signed.build("m", b"proposed")
    path = signed.path(signed.propose(record))
    stated = json.loads(path.read_bytes())
    cut = {"cut": "an unknown cut", "feature_dim": 8}
    path.write_text(json.dumps(stated | {"backbone": cut}))
    assert record_key("m", record.key) not in sweep(signed).condemned
    assert signed.repository.blobs.has(record.engine)


def test_what_is_no_record_keeps_nobody_from_sweeping(signed: Signed) -> None:
    signed.release()
    for key in ("candidates/m/x.json", f"records/m/{'5' * 64}.json", "exports/m/x.json"):
        signed.path(key).parent.mkdir(parents=True, exist_ok=True)
        signed.path(key).write_text("{")
    signed.path("gc").mkdir()
    signed.path("gc/condemned.json").write_text("[1]")
    done = sweep(signed)
    assert f"records/m/{'5' * 64}.json" in done.deleted
    assert "candidates/m/x.json" not in done.deleted  # the publisher says what is wrong with it
    assert signed.pulled(signed.client("new")) == b"engine"
