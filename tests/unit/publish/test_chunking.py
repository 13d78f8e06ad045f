"""Publishing with chunks: what is signed, kept, made again and left out."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from support.chunked_engines import current_list, engine, in_chunks, pack_paths, pull, rebuilt
from support.goldens import raises_golden
from support.signed_repository import Signed

from builders.publish import chunking
from builders.publish.garbage import collect
from zoo.schema.chunks import Chunking
from zoo.schema.layout import blob_key
from zoo.util import zstd
from zoo.util.errors import MissingPackageError


def publish_all(signed: Signed, chunking: Chunking = Chunking.ON) -> list[str]:
    return signed.publish(chunking=chunking).models


def test_repositories_without_chunks_stay_as_they_are(signed: Signed) -> None:
    signed.release("m", engine())
    (entry,) = json.loads(signed.store.get("index/m.json"))["engines"]
    assert "chunks" not in entry
    assert "chunks" not in json.loads(signed.store.get("index.json"))
    assert publish_all(signed, Chunking.OFF) == []


def test_chunks_are_made_for_what_is_published_already(signed: Signed) -> None:
    signed.release("m", engine())
    signed.release("other", engine(1))
    assert publish_all(signed) == ["m", "other"]
    assert current_list(signed, "other").whole.size == len(engine(1))
    assert publish_all(signed) == []
    assert publish_all(signed, Chunking.OFF) == ["m", "other"]
    (entry,) = json.loads(signed.store.get("index/m.json"))["engines"]
    assert "chunks" not in entry
    assert "chunks" not in json.loads(signed.store.get("index.json"))


def test_what_did_not_change_is_not_proposed_again(signed: Signed) -> None:
    from builders.publish.index import propose_again

    in_chunks(signed).release("m", engine())
    assert propose_again(signed.repository, "m", lambda: signed.now) is None


def test_superseded_engines_keep_their_chunks(signed: Signed) -> None:
    in_chunks(signed).release("m", engine())
    first = current_list(signed)
    signed.release("m", rebuilt(engine()))
    old = [entry for entry in signed.client().model("m").engines if entry.superseded]
    assert [entry.chunks is not None for entry in old] == [True]
    assert old[0].engine.sha256 == first.whole.sha256


@pytest.mark.parametrize("lost", ["removed", "damaged"])
def test_a_lost_pack_is_made_again(signed: Signed, lost: str) -> None:
    in_chunks(signed).release("m", engine())
    (path,) = pack_paths(signed)
    whole = path.read_bytes()
    if lost == "removed":
        path.unlink()
    else:
        path.write_bytes(bytes(len(whole)))
    publish_all(signed)
    assert path.read_bytes() == whole


def test_a_missing_engine_has_no_chunks(signed: Signed) -> None:
    record = signed.release("m", engine())
    signed.blob_path(record).unlink()
    assert publish_all(signed) == []


def test_one_pack_holds_what_is_new(signed: Signed) -> None:
    in_chunks(signed).release("m", engine())
    names = {path.name for path in signed.path("blobs").rglob("*") if path.is_file()}
    signed.release("m", rebuilt(engine()))
    later = {path.name for path in signed.path("blobs").rglob("*") if path.is_file()}
    (entry, *_) = signed.client().model("m").current
    assert entry.chunks is not None
    pack = current_list(signed).packs[-1]
    assert {entry.chunks.sha256, entry.engine.sha256, pack.sha256} <= later - names
    assert len(later - names) == 4  # and its provenance
    assert signed.store.size(blob_key(pack.sha256)) == pack.size


def test_publishing_chunks_needs_packages(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    in_chunks(signed)
    signed.propose(signed.build("m", engine()))
    monkeypatch.setattr(chunking, "can_cut", lambda: False)
    with raises_golden(MissingPackageError, "publish/chunks-need-packages"):
        signed.publish()
    assert signed.repository.candidates.waiting()
    monkeypatch.undo()
    assert signed.publish().models == ["m"]


def test_gc_keeps_what_lists_need(signed: Signed) -> None:
    in_chunks(signed).release("m", engine())
    first = pack_paths(signed)
    signed.release("m", rebuilt(engine()))
    signed.later(days=31)
    signed.publish(refresh=True)  # the first engine leaves the index, its chunks are still needed
    assert len(signed.client().model("m").engines) == 1
    before = {path.name for path in pack_paths(signed)}
    for days in (0, 8, 16):
        collect_all(signed, days)
    assert {path.name for path in pack_paths(signed) if path.is_file()} == before
    assert first[0].name in before
    pulled = pull(signed.client("new"), seeds=[])
    assert pulled.engine.read_bytes() == rebuilt(engine())


def test_gc_deletes_the_chunks_of_a_repository_that_has_them_no_more(signed: Signed) -> None:
    in_chunks(signed).release("m", engine())
    (entry,) = signed.client("reader").model("m").current
    assert entry.chunks is not None
    gone = [*pack_paths(signed), signed.path(blob_key(entry.chunks.sha256))]
    publish_all(signed, Chunking.OFF)
    for days in (0, 8, 16):
        collect_all(signed, days)
    assert not any(path.exists() for path in gone)
    assert signed.pulled(signed.client("new")) == engine()


def test_gc_needs_zstd_to_know_the_packs(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    in_chunks(signed).release("m", engine())

    def missing() -> None:
        raise MissingPackageError("zstd is not installed", hint=zstd.INSTALL)

    monkeypatch.setattr(zstd, "_zstd", missing)
    with pytest.raises(MissingPackageError):
        collect_all(signed, 0)


def collect_all(signed: Signed, days: int) -> None:
    """Marks and deletes what is not needed, some days from now."""
    now = signed.now + timedelta(days=days)
    client = signed.client("collector")
    collect(client, timedelta(days=7), now, delete=True)
