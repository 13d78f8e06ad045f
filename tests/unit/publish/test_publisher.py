"""Publishing: what is proposed is looked at, what passes is signed, a kill leaves no half."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.goldens import assert_golden, raises_golden
from support.records import blob
from support.signed_repository import ROW, TOLERANCE, Signed

from builders.publish.index import SUPERSEDED_STAYS
from zoo.schema.index import ModelIndex, OwnFloor
from zoo.schema.layout import record_key
from zoo.schema.licences import check_licence
from zoo.schema.records import BuildRecord
from zoo.util.errors import LicenceError


def index(signed: Signed, model: str = "m") -> ModelIndex:
    return signed.client().model(model)


# What is refused


BAD: dict[str, Callable[[Signed], Any]] = {
    "damaged": lambda s: s.blob_path(s.build()).write_bytes(b"ENGINE"),
    "missing": lambda s: s.blob_path(s.build()).unlink(),
    "other-target": lambda s: s.build(targets=("cpu-ort1.31-fp32",)),
    "seeded": lambda s: s.build(dry_run=True),
    "no-licence-file": lambda s: s.build(files={}),
    "no-provenance": lambda s: beside(s, provenance=None),
    "other-provenance": lambda s: s.build(files=s.build("twin").files),
    "other-licence-text": lambda s: beside(s, LICENSE=b"Do as you like."),
    "licence": lambda s: s.build(licence="cc-by-nc-4.0"),
    "too-long": lambda s: endless(s.blob_path(s.build())),
    "cosine": lambda s: verified(s, worst_cosine=0.2),
    "relative-error": lambda s: verified(s, worst_relative_error=0.5),
    "distance-error": lambda s: verified(s, worst_distance_error=0.5),
    "neighbours": lambda s: verified(s, neighbours=0.5),
    "lost-rows": lambda s: verified(s, lost_rows=2),
    "not-finite": lambda s: verified(s, finite=False, rows_not_finite=3),
    "no-lost-rows": lambda s: verified(
        s, batches=[{name: value for name, value in ROW.items() if name != "lost_rows"}]
    ),
    "looser-cosine": lambda s: verified(s, tolerance={**TOLERANCE, "cosine": 0.5}),
    "looser-distance-error": lambda s: verified(s, tolerance={**TOLERANCE, "distance_error": 0.5}),
    "no-numbers": lambda s: verified(s, batches=[]),
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


@pytest.mark.parametrize("bad", BAD)
def test_what_is_not_as_it_should_be_is_not_signed(signed: Signed, bad: str) -> None:
    good = signed.release("good")
    BAD[bad](signed)
    candidate = signed.propose(*signed.repository.records("m"))
    published = signed.publish()
    assert_golden(f"publish/refused-{bad}", published.refused[candidate])
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
    assert_golden("publish/refused-own-floors-gone", refused)
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
    record, other = signed.build(), "5" * 64
    signed.path(f"records/m/{other}.json").write_bytes(record.to_json())
    candidates = signed.repository.candidates
    candidate = candidates.read(proposed := signed.propose(record))
    assert candidate is not None
    signed.store.delete(proposed)
    key = candidates.propose(candidate.model_copy(update={"records": (other,)}))
    assert_golden("publish/refused-renamed-record", signed.publish().refused[key])


@pytest.mark.parametrize("what", ["record", "candidate"])
def test_what_has_no_end_is_not_read_to_it(signed: Signed, what: str) -> None:
    key = signed.propose(record := signed.build())
    endless(signed.path(key if what == "candidate" else record_key("m", record.key)))
    assert "16,777,216" in signed.publish().refused[key]


@pytest.mark.parametrize("digest", ["../" * 10 + "etc/passwd", "/etc/passwd", "s3://other/blob"])
@pytest.mark.parametrize("field", ["engine", "golden", "LICENSE"])
def test_a_record_that_points_outside_is_refused(signed: Signed, field: str, digest: str) -> None:
    key = signed.propose(record := signed.build())
    path = signed.path(record_key("m", record.key))
    data = json.loads(path.read_text())
    blob = data["files"][field] if field in data["files"] else data[field]
    blob["sha256"] = digest
    path.write_text(json.dumps(data))
    assert "sha256" in signed.publish().refused[key]


def test_weights_that_may_not_be_handed_out_are_refused(signed: Signed) -> None:
    check_licence("m", "apache-2.0")
    with raises_golden(LicenceError, "publish/licence", match="cc-by-nc-4.0"):
        check_licence("m", "cc-by-nc-4.0")
    key = signed.propose(signed.build(), licence="cc-by-nc-4.0")
    assert_golden("publish/refused-licence-of-model", signed.publish().refused[key])


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


def test_signing_again_changes_nothing_but_when_it_was_proposed(signed: Signed) -> None:
    record = signed.release()
    before = index(signed)
    signed.propose(record)
    assert signed.publish().models == ["m"]
    assert index(signed).model_copy(update={"proposals": before.proposals}) == before
    assert index(signed).proposals.keys() == before.proposals.keys()
    assert index(signed).proposals != before.proposals


# Kills
