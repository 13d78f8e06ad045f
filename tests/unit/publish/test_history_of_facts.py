"""A corrected fact reaches the signed index, the documents and the readers; nothing is built."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from support import records
from support.signed_repository import Signed, notice_of

from builders.publish.garbage import collect
from zoo.client.mirror import Filter, mirror
from zoo.schema.corrections import ManifestSource
from zoo.schema.index import ModelIndex
from zoo.schema.layout import blob_key
from zoo.schema.licences import LICENCE_FILE, NOTICE_FILE, licence_text
from zoo.schema.records import BuildRecord
from zoo.stores import LocalStore
from zoo.util.errors import RepositoryError

SOURCE = ManifestSource(sha256="a" * 64, commit="b" * 40, changed=True)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


def correct(signed: Signed, record: BuildRecord, source: ManifestSource | None = SOURCE,
            **card: Any) -> ModelIndex:  # fmt: skip
    """Proposes an engine again with other facts, and signs it a second later."""
    signed.later(seconds=1)
    signed.propose(record, source=source, **card)
    assert not signed.publish().refused
    return signed.client().model(record.inputs.model)


def texts(signed: Signed, model: str = "m", name: str = "home") -> dict[str, bytes]:
    """What a reader gets beside an engine."""
    client = signed.client(name)
    (entry,) = client.model(model).current
    return {word: path.read_bytes() for word, path in client.documents(model, entry).items()}


def told(signed: Signed, model: str = "m", name: str = "home") -> list[str]:
    client = signed.client(name)
    (entry,) = client.model(model).current
    client.pull(model, entry)
    return client.corrections(model, entry)


def test_the_history_says_from_what_to_what_when_and_by_whom(signed: Signed) -> None:
    record = signed.release()
    index = correct(signed, record, licence="mit")
    (change,) = index.corrected
    assert (change.fact, change.before, change.after) == ("licence", "apache-2.0", "mit")
    assert change.time == signed.now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert change.source == SOURCE
    assert change.signer == signed.ring.entry("publisher").keyid
    assert SOURCE.commit is not None
    assert SOURCE.commit[:16] in change.by
    assert change.signer[:16] in change.by


def test_what_a_builder_does_not_know_is_not_said(signed: Signed) -> None:
    (change,) = correct(signed, signed.release(), source=None, licence="mit").corrected
    assert "source" not in change.model_dump()
    assert "manifest" not in change.by


def test_the_right_documents_are_published_and_reach_readers(signed: Signed) -> None:
    record = signed.release()
    assert texts(signed)[LICENCE_FILE] == licence_text("apache-2.0").encode()
    assert "documents" not in signed.client().model("m").engines[0].model_dump()
    (entry,) = correct(signed, record, licence="mit").engines
    assert entry.record_file == signed.repository.record_file("m", record.key)
    assert texts(signed) == {
        LICENCE_FILE: licence_text("mit").encode(),
        NOTICE_FILE: notice_of("m", "mit"),
    }


@pytest.mark.parametrize(
    ("fact", "card"),
    [
        ("title", {"catalog": records.catalog_text(title="Another")}),
        ("origin", {"origin": "https://example.org/another"}),
    ],
)
def test_title_and_origin_change_the_notice_alone(
    signed: Signed, fact: str, card: dict[str, Any]
) -> None:
    (entry,) = correct(signed, signed.release(), **card).engines
    assert list(entry.documents) == [NOTICE_FILE]
    assert texts(signed)[LICENCE_FILE] == licence_text("apache-2.0").encode()
    assert b"nother" in texts(signed)[NOTICE_FILE]


def test_corrected_twice(signed: Signed) -> None:
    record = signed.release()
    assert told(signed) == []
    correct(signed, record, licence="mit")
    index = correct(signed, record, licence="bsd-3-clause")
    assert [(change.before, change.after) for change in index.corrected] == [
        ("apache-2.0", "mit"), ("mit", "bsd-3-clause"),
    ]  # fmt: skip
    (sentence,) = told(signed)  # from what this reader knew to what is right, once
    assert "bsd-3-clause, was: apache-2.0" in sentence
    assert told(signed) == []
    assert texts(signed)[LICENCE_FILE] == licence_text("bsd-3-clause").encode()


def test_corrected_back(signed: Signed) -> None:
    record = signed.release()
    assert told(signed, name="early") == []
    correct(signed, record, licence="mit")
    assert len(told(signed, name="meanwhile")) == 1  # its record says otherwise
    index = correct(signed, record)
    (entry,) = index.engines
    assert entry.documents == {}  # those of the record are right
    assert len(index.corrected) == 2
    assert texts(signed)[NOTICE_FILE] == notice_of("m")
    assert told(signed, name="early") == []
    (sentence,) = told(signed, name="meanwhile")
    assert "apache-2.0, was: mit" in sentence
    assert told(signed, name="later") == []


def test_two_models_that_share_an_engine(signed: Signed) -> None:
    first, second = signed.release("m"), signed.release("n")
    assert first.engine == second.engine
    assert (told(signed, "m"), told(signed, "n")) == ([], [])
    correct(signed, first, licence="mit")
    assert signed.client().model("n").corrected == ()
    assert texts(signed, "m")[LICENCE_FILE] == licence_text("mit").encode()
    assert texts(signed, "n")[LICENCE_FILE] == licence_text("apache-2.0").encode()
    assert len(told(signed, "m")) == 1
    assert told(signed, "n") == []


def test_an_engine_built_after_the_correction_needs_no_other_documents(signed: Signed) -> None:
    correct(signed, signed.release(), licence="mit")
    files = {
        **signed.papers(signed.build_inputs("m", b"new"), signed.blob(b"new")),
        LICENCE_FILE: signed.blob(licence_text("mit").encode()),
        NOTICE_FILE: signed.blob(notice_of("m", "mit")),
    }
    newer = signed.build(content=b"new", licence="mit", files=files)
    index = correct(signed, newer, licence="mit")
    documents = {entry.record: bool(entry.documents) for entry in index.engines}
    assert documents.pop(newer.key) is False
    assert list(documents.values()) == [True]  # the superseded one
    assert len(index.corrected) == 1
    assert told(signed, name="new") == []


def test_mirror_and_gc_keep_the_new_documents(signed: Signed, tmp_path: Path) -> None:
    record = signed.release()
    (entry,) = correct(signed, record, licence="mit").engines
    for _ in range(2):
        collect(signed.client(), timedelta(days=7), signed.now, delete=True)
        signed.later(days=8)
        signed.publish(refresh=True)
    for blob in entry.documents.values():
        assert signed.store.size(blob_key(blob.sha256)) == blob.size
    copy = LocalStore(tmp_path / "copy")
    mirror(signed.client(), copy, Filter())
    client = signed.client("of the copy", store=copy)
    (entry,) = client.model("m").current
    assert client.documents("m", entry)[NOTICE_FILE].read_bytes() == notice_of("m", "mit")


def test_a_mirror_without_the_new_documents_gives_them_all_the_same(signed: Signed) -> None:
    """An earlier version made it; the text of a known licence follows from the signed facts."""
    (entry,) = correct(signed, signed.release(), licence="mit").engines
    for blob in entry.documents.values():
        signed.path(blob_key(blob.sha256)).unlink()
    assert texts(signed)[NOTICE_FILE] == notice_of("m", "mit")


@pytest.mark.parametrize("content", [b"damaged", None])
def test_documents_that_are_damaged_or_gone_are_an_error_and_leave_no_file(
    signed: Signed, content: bytes | None
) -> None:
    """Of a later version, whose wording this one can't make."""
    (entry,) = correct(signed, signed.release(), licence="mit").engines
    blob = signed.blob(b"A later wording of NOTICE.")
    path = signed.path(blob_key(blob.sha256))
    path.write_bytes(content) if content else path.unlink()
    later = entry.model_copy(update={"documents": {NOTICE_FILE: blob}})
    client = signed.client()
    with pytest.raises(RepositoryError):
        client.documents("m", later)
    assert not list(signed.folder.rglob(NOTICE_FILE))


def test_an_old_client_reads_a_new_index(signed: Signed) -> None:
    """To it documents and the history's sources are fields that it does not know."""
    index = correct(signed, signed.release(), licence="mit")
    stated = index.model_dump(mode="json")
    stated["engines"][0]["of a later version"] = {"sha256": "c" * 64}
    stated["corrected"][0]["of a later version"] = "by whom"
    read = ModelIndex.model_validate(stated)
    assert read.model_dump(mode="json") == stated  # kept, and passed on


def test_a_document_of_a_later_version_is_left_alone(signed: Signed) -> None:
    record = signed.release()
    client = signed.client()
    (entry,) = client.model("m").current
    strange = entry.model_copy(update={"documents": {"../../evil": record.engine}})
    assert client.documents("m", strange).keys() == {LICENCE_FILE, NOTICE_FILE}


def test_a_licence_that_forbids_publishing_is_stated_once_all_is_withdrawn(signed: Signed) -> None:
    record = signed.release()
    key = signed.propose(record, licence="cc-by-nc-4.0")
    assert key in signed.publish().refused
    body = {"reason": "forbidden", "by": "a maintainer"}
    signed.attest(record.engine, kind="withdrawn", body=body, time="2027-01-01T00:00:00.000000Z")
    index = correct(signed, record, licence="cc-by-nc-4.0")
    assert index.licence == "cc-by-nc-4.0"
    (entry,) = index.engines
    assert entry.status == "withdrawn"
    assert entry.documents == {}
    index = correct(signed, record)  # a way back: allowed again, and still withdrawn
    assert [change.after for change in index.corrected] == ["cc-by-nc-4.0", "apache-2.0"]
    assert index.engines[0].status == "withdrawn"


def test_a_time_has_the_format_of_records() -> None:
    """Corrections and builds are compared by their times."""
    from builders.publish.corrections import TIME
    from zoo.util.clock import utc_now

    assert datetime.strptime(utc_now(), TIME).replace(tzinfo=timezone.utc)
