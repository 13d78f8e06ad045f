"""Somebody who can write to the store and has no key: what they leave there is not signed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.goldens import assert_golden
from support.paths import ROOT
from support.real_engines import (
    PREPROCESS,
    build_real,
    engine_bytes,
    golden_bytes,
    other_engine_bytes,
)
from support.records import attestation, build_inputs, build_record, machine
from support.signed_repository import ROW, START, TOLERANCE, Signed, no_passphrase, run_nothing

from builders.publish.builder_list import Builders
from builders.publish.candidate_check import check_candidate
from builders.publish.index import propose
from builders.publish.keys import load_builder, new_builder
from builders.publish.publisher import check_apart
from builders.publish.registered import read_file, write_builders
from builders.publish.rerun import rerun_apart
from builders.publish.signatures import sign, sign_candidate
from builders.publish.tuf_metadata import SignedMetadata
from zoo.repository.repository import Repository
from zoo.schema.index import Candidate, ModelCard, ModelIndex
from zoo.schema.layout import record_key
from zoo.schema.records import BuildRecord
from zoo.util.clock import utc_now
from zoo.util.digest import sha256_bytes
from zoo.util.errors import MissingPackageError


@pytest.fixture
def bench(tmp_path: Path) -> Signed:
    """A repository whose publisher runs engines again, and an engine that it has signed."""
    signed = Signed(tmp_path, rerun=rerun_apart)
    record = build_real(signed, "good", inputs=inputs("good"))
    signed.propose(record)
    assert not signed.publish().refused
    return signed


def inputs(model: str = "m") -> Any:
    return build_inputs(model=model, preprocess=PREPROCESS)


BODY = {"batches": [ROW], "tolerance": TOLERANCE}
TEXT = b"an engine that never ran " * 800

ENGINES: dict[str, Callable[[Signed], Any]] = {
    "text": lambda s: build_real(s, engine=TEXT, inputs=inputs()),
    "other-network": lambda s: build_real(s, engine=other_engine_bytes(), inputs=inputs()),
    "other-width": lambda s: build_real(s, engine=engine_bytes(4), inputs=inputs()),
    "golden-text": lambda s: build_real(s, golden=TEXT, inputs=inputs()),
}


@pytest.mark.parametrize("case", ENGINES)
def test_a_cpu_engine_is_run_again_before_it_is_signed(bench: Signed, case: str) -> None:
    candidate = bench.propose(ENGINES[case](bench))
    refused = bench.publish().refused[candidate]
    assert_golden(f"publish/rerun-{case}", refused)
    assert [row.model for row in bench.client().index().models] == ["good"]


def test_an_engine_that_does_what_its_golden_file_says_is_signed(bench: Signed) -> None:
    bench.check = check_apart  # the builders are told to the process that checks
    candidate = bench.propose(copied(bench))
    assert list(bench.publish().refused) == [candidate]
    (entry,) = bench.client().model("good").engines
    assert entry.status == "verified"


def test_a_publisher_that_can_not_run_it_leaves_it_waiting(
    bench: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = bench.propose(build_real(bench, inputs=inputs()))
    without = bench.folder / "without" / "onnx"
    without.mkdir(parents=True)
    (without / "__init__.py").write_text("raise ModuleNotFoundError(name='onnx')\n")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{without.parent}:{ROOT}")
        with pytest.raises(MissingPackageError):
            bench.publish()
    assert bench.repository.candidates.waiting() == [candidate]
    assert not bench.publish().refused


def test_what_is_signed_is_not_run_again(bench: Signed) -> None:
    ran: list[str] = []

    def counted(repository: Any, made: Any, previous: Any) -> None:
        golden = bench.repository.records("good")[0].golden
        bench.find(f"blobs/sha256/*/{golden.sha256}").unlink()  # running it would need this
        rerun_apart(repository, made, previous)
        ran.append(made.model)

    bench.rerun = counted
    bench.propose(bench.repository.records("good")[0], origin="https://example.org/other")
    assert not bench.publish().refused
    assert ran == ["good"]


# Attestations


def forger(signed: Signed) -> Repository:
    """The store as somebody without keys writes to it: what they attest is not signed."""
    return Repository(signed.store)


def leave(signed: Signed, record: BuildRecord) -> None:
    """Writes a record where another with the same inputs may already be."""
    signed.store.put(record_key(record.inputs.model, record.key), record.to_json())


def copied(signed: Signed) -> BuildRecord:
    """A text as another model's engine, with every attestation of an engine that was proven."""
    good = signed.repository.records("good")[0]
    forged = forge(signed, "m", TEXT)
    for one in forger(signed).attestations(good.engine.sha256):
        about = one.model_copy(update={"engine": forged.engine.sha256})
        forger(signed).attest(about, forged.key)
    return forged


def unsigned(signed: Signed) -> BuildRecord:
    """An engine that runs, with an attestation that nobody signed."""
    forged = forge(signed, "m", engine_bytes())
    about = attestation(engine=forged.engine.sha256, machine=machine(), body=BODY)
    forger(signed).attest(about, forged.key)
    return forged


def another_builder(signed: Signed) -> BuildRecord:
    """The same, signed with a key that the forger made."""
    forged = forge(signed, "m", engine_bytes())
    new_builder(signed.folder / "forged.pem", "first", None)
    signer = load_builder(signed.folder / "forged.pem", no_passphrase)
    about = attestation(engine=forged.engine.sha256, machine=machine(), body=BODY)
    forger(signed).attest(sign(about, signer, sha256_bytes(forged.to_json())), forged.key)
    return forged


def other_record(signed: Signed) -> BuildRecord:
    """A proven engine under the name of another model: its attestations are real."""
    good = signed.repository.records("good")[0]
    return forge(signed, "m", engine_bytes(), golden=good.golden)


def exchanged(signed: Signed) -> BuildRecord:
    """The record of a listed engine, which now names another."""
    good = signed.repository.records("good")[0]
    engine = signed.blob(other_engine_bytes())
    for one in forger(signed).attestations(good.engine.sha256):
        forger(signed).attest(one.model_copy(update={"engine": engine.sha256}), good.key)
    changed = good.model_copy(
        update={"engine": engine, "files": signed.papers(good.inputs, engine)}
    )
    leave(signed, changed)
    return changed


def changed_golden(signed: Signed) -> BuildRecord:
    """The record of a listed engine, with a golden file that another network meets."""
    good = signed.repository.records("good")[0]
    golden = signed.blob(golden_bytes(other_engine_bytes(), signed.folder))
    changed = good.model_copy(update={"golden": golden})
    leave(signed, changed)
    return changed


def changed_width(signed: Signed) -> BuildRecord:
    """The record of a listed engine, which states another width of its features."""
    good = signed.repository.records("good")[0]
    changed = good.model_copy(update={"feature_dim": 5})
    leave(signed, changed)
    return changed


def forge(signed: Signed, model: str, content: bytes, **changes: Any) -> BuildRecord:
    engine = signed.blob(content)
    own = build_inputs(model=model, preprocess=PREPROCESS, onnx=sha256_bytes(content))
    golden = changes.pop("golden", None) or signed.blob(golden_bytes(engine_bytes(), signed.folder))
    record = build_record(
        inputs=own, engine=engine, golden=golden, files=signed.papers(own, engine), feature_dim=8
    )
    forger(signed).add_record(record)
    return record


ATTACKS: dict[str, Callable[[Signed], BuildRecord]] = {
    "copied-attestation": copied,
    "unsigned": unsigned,
    "another-builder": another_builder,
    "other-record": other_record,
    "exchanged-blob": exchanged,
    "changed-golden": changed_golden,
    "changed-width": changed_width,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_who_can_only_write_to_the_store_has_nothing_signed(bench: Signed, attack: str) -> None:
    before = bench.client().model("good").engines
    candidate = bench.propose(ATTACKS[attack](bench))
    refused = bench.publish().refused[candidate]
    assert_golden(f"publish/attack-{attack}", refused)
    assert [row.model for row in bench.client("later").index().models] == ["good"]
    assert bench.client("later").model("good").engines == before


def test_before_there_were_builders_a_forger_was_believed(bench: Signed) -> None:
    """Why builders sign: without a list of them, everything else says yes."""
    bench.rerun = run_nothing

    def as_before(*question: Any) -> ModelIndex:
        return check_candidate(*question[:-1], None)

    bench.check = as_before
    bench.propose(copied(bench))
    assert not bench.publish().refused
    (entry,) = bench.client().model("m").engines
    assert (entry.status, entry.engine.size) == ("verified", len(TEXT))


def test_a_builder_that_was_removed_proves_nothing_new(bench: Signed) -> None:
    said = verdicts(bench)
    waiting = bench.propose(build_real(bench, inputs=inputs()))
    candidate = proposed_by(bench, waiting)
    bench.store.delete(waiting)
    register(bench, (new_builder(bench.ring.builder_file.with_name("b.pem"), "second", None),))
    signer = load_builder(bench.ring.builder_file.with_name("b.pem"), no_passphrase)
    bench.repository.candidates.sign = lambda candidate: sign_candidate(candidate, signer)
    waiting = bench.repository.candidates.propose(candidate)
    assert_golden("publish/attack-removed-builder", bench.publish().refused[waiting])
    bench.propose(bench.repository.records("good")[0], origin="https://example.org/other")
    assert not bench.publish().refused
    assert verdicts(bench, "later") == said  # it was signed when it counted


def test_a_withdrawal_can_not_be_deleted(bench: Signed) -> None:
    (entry,) = bench.client().model("good").engines
    bench.attest(entry.engine, kind="withdrawn", body={"reason": "it leaks"}, time=utc_now())
    bench.propose(bench.repository.records("good")[0])
    assert not bench.publish().refused
    for listed in bench.store.list(f"attestations/{entry.engine.sha256}/"):
        if "-withdrawn-" in listed.key:
            bench.store.delete(listed.key)
    candidate = bench.propose(bench.repository.records("good")[0])
    assert_golden("publish/attack-no-withdrawal", bench.publish().refused[candidate])
    (still,) = bench.client("later").model("good").engines
    assert (still.status, still.reason) == ("withdrawn", "it leaks")


def test_a_verdict_that_is_copied_to_a_later_name_stays_an_earlier_one(bench: Signed) -> None:
    (entry,) = bench.client().model("good").engines
    record = bench.repository.record("good", entry.record)
    assert record is not None
    reason = {"reason": "wrong features with a new driver"}
    bench.attest(
        record.engine, kind="withdrawn", time="2031-01-01T00:00:00.000000Z", body=reason,
        file=sha256_bytes(record.to_json()),
    )  # fmt: skip
    bench.propose(record)
    assert not bench.publish().refused
    before = verdicts(bench)
    assert before[0][0] == "withdrawn"

    verified = bench.find(f"attestations/{record.engine.sha256}/*-verified-*")
    verified.with_name(f"9999{verified.name[4:]}").write_bytes(verified.read_bytes())
    bench.propose(record)
    assert not bench.publish().refused
    assert verdicts(bench, "another home") == before


def test_a_candidate_that_was_renamed_does_not_jump_the_queue(bench: Signed) -> None:
    (entry,) = bench.client().model("good").engines
    record = bench.repository.record("good", entry.record)
    assert record is not None
    lies = bench.path(bench.propose(record))
    renamed = lies.rename(lies.with_name(f"9999{lies.name[4:]}"))
    (reason,) = bench.publish().refused.values()
    assert f"{renamed.name} was renamed: it is {lies.name}" in reason


def verdicts(signed: Signed, home: str = "home") -> list[tuple[Any, ...]]:
    """What a client reads of the engine that was signed first."""
    engines = signed.client(home).model("good").engines
    return [(one.status, one.verification, one.attested) for one in engines]


def register(signed: Signed, builders: Builders) -> None:
    metadata = SignedMetadata(signed.store, signed.ring)
    assert metadata.load()
    write_builders(metadata.targets.signed, builders)
    metadata.sign_targets()


# Candidates


def proposed_by(signed: Signed, key: str) -> Candidate:
    candidate = signed.repository.candidates.read(key)
    assert candidate is not None
    return candidate


def unsigned_candidate(signed: Signed, candidate: Candidate) -> Candidate:
    return candidate.model_copy(update={"signature": None})


def edited_candidate(signed: Signed, candidate: Candidate) -> Candidate:
    """A builder's, with its signature and another title."""
    catalog = candidate.card.catalog.model_copy(update={"title": "Forged"})
    card = candidate.card.model_copy(update={"catalog": catalog})
    return candidate.model_copy(update={"card": card})


def candidate_of_another_key(signed: Signed, candidate: Candidate) -> Candidate:
    new_builder(signed.folder / "forged.pem", "first", None)
    return sign_candidate(candidate, load_builder(signed.folder / "forged.pem", no_passphrase))


def candidate_with_the_name_of_a_builder(signed: Signed, candidate: Candidate) -> Candidate:
    """Signed by another key, whose ID is replaced by the builder's."""
    assert candidate.signature is not None
    forged = candidate_of_another_key(signed, candidate).signature
    assert forged is not None
    signature = forged.model_copy(update={"builder": candidate.signature.builder})
    return candidate.model_copy(update={"signature": signature})


@pytest.mark.parametrize(
    "forge_candidate",
    [
        unsigned_candidate,
        edited_candidate,
        candidate_of_another_key,
        candidate_with_the_name_of_a_builder,
    ],
)
def test_only_a_builders_candidate_is_signed(
    signed: Signed, forge_candidate: Callable[[Signed, Candidate], Candidate]
) -> None:
    key = signed.propose(signed.build())
    candidate = forge_candidate(signed, proposed_by(signed, key))
    signed.store.delete(key)
    forged = forger(signed).candidates.propose(candidate)
    assert_golden("publish/attack-candidate", signed.publish().refused[forged])
    assert not signed.client().index().models


def test_an_earlier_candidate_does_not_bring_an_engine_back(signed: Signed) -> None:
    first = signed.propose(signed.build())
    kept = signed.path(first).read_bytes()
    signed.publish()
    second = signed.build(content=b"better")
    signed.propose(second)
    assert not signed.publish().refused
    signed.store.put(first, kept)
    refused = signed.publish().refused[first]
    assert_golden("publish/attack-earlier-candidate", times_hidden(refused))
    (current,) = signed.client().model("m").current
    assert current.engine == second.engine


def test_what_a_builder_proposed_before_another_did_is_signed(signed: Signed) -> None:
    """Each has a clock of its own."""
    candidate = proposed_by(signed, signed.propose(signed.build()))
    assert not signed.publish().refused
    other = new_builder(signed.folder / "other.pem", "other", None)
    register(signed, (*read_file(signed.ring.builders_file), other))
    signer = load_builder(signed.folder / "other.pem", no_passphrase)
    slow = candidate.model_copy(update={"proposed": "2026-01-01T00:00:00.000000Z"})
    forger(signed).candidates.propose(sign_candidate(slow, signer))
    assert not signed.publish().refused
    assert set(signed.repository.model_index("m").proposals) == {  # type: ignore[union-attr]
        signer.public_key.keyid,
        candidate.signature.builder,  # type: ignore[union-attr]
    }


def test_a_builder_whose_clock_was_set_back_proposes_after_what_it_proposed(
    signed: Signed,
) -> None:
    record = signed.release()
    candidate = Candidate(card=card_of(signed), records=(record.key,))
    assert propose(signed.repository, candidate, lambda: START) is None  # nothing is new
    catalog = candidate.card.catalog.model_copy(update={"title": "Corrected"})
    corrected = candidate.card.model_copy(update={"catalog": catalog})
    candidate = candidate.model_copy(update={"card": corrected})
    assert propose(signed.repository, candidate, lambda: START) is not None
    assert (
        propose(signed.repository, candidate, lambda: START) is not None
    )  # it waits: one is enough
    assert len(signed.repository.candidates.waiting()) == 1
    assert not signed.publish().refused
    assert signed.client().model("m").catalog.title == "Corrected"


def card_of(signed: Signed) -> ModelCard:
    index = signed.repository.model_index("m")
    assert index is not None
    return index.card


def times_hidden(text: str) -> str:
    return re.sub(r"[0-9-]{10}T[0-9:.]{15}Z", "TIME", text)


# Repositories from before there were builders


@pytest.fixture
def old(tmp_path: Path) -> Signed:
    """A repository as earlier versions left it: no builders, nothing signed by one."""
    signed = Signed(tmp_path)
    signed.ring.builders_file.unlink()
    signed.ring.builder_file.unlink()
    signed.repository.sign = signed.repository.candidates.sign = None
    signed.propose(build_real(signed, "good", inputs=inputs("good")))
    published = signed.publish()
    assert not published.refused
    assert published.trusts_everybody
    return signed


def with_builder(signed: Signed) -> Signed:
    register(signed, (new_builder(signed.ring.builder_file, "first", None),))
    signed.sign_as_builder()
    return signed


def test_an_old_repository_goes_on_when_it_gets_a_builder(old: Signed) -> None:
    before, said = old.client().model("good").engines, verdicts(old)
    assert [entry.attested for entry in before] == [()]
    with_builder(old)
    old.propose(old.repository.records("good")[0], origin="https://example.org/other")
    published = old.publish()
    assert not published.refused
    assert not published.trusts_everybody
    assert verdicts(old, "later") == said
    old.attest(before[0].engine, time=utc_now(), key="7" * 64)
    old.propose(old.repository.records("good")[0])
    assert not old.publish().refused
    (entry,) = old.client("last").model("good").engines
    assert entry.verification is not None
    assert entry.verification.key == "7" * 64
    assert len(entry.attested) == 2


def test_an_old_repository_with_a_builder_signs_nothing_forged(old: Signed) -> None:
    with_builder(old)
    candidate = old.propose(copied(old))
    assert candidate in old.publish().refused
    entry = old.client().model("good").engines[0]
    forger(old).attest(
        attestation(
            engine=entry.engine.sha256, machine=machine(), body=BODY, time=utc_now(), key="7" * 64
        )
    )
    candidate = old.propose(old.repository.records("good")[0])
    assert_golden("publish/attack-old-attestation", old.publish().refused[candidate])
    assert old.client("later").model("good").engines == (entry,)


def test_a_withdrawn_engine_of_an_old_repository_stays_withdrawn(old: Signed) -> None:
    (entry,) = old.client().model("good").engines
    old.attest(
        entry.engine, kind="withdrawn", body={"reason": "it leaks", "by": "a maintainer"},
        time=utc_now(),
    )  # fmt: skip
    record = old.repository.records("good")[0]
    old.propose(record)
    assert not old.publish().refused
    with_builder(old)
    old.attest(entry.engine, time=utc_now(), key="7" * 64)
    old.propose(record)
    assert not old.publish().refused
    (still,) = old.client("later").model("good").engines
    assert (still.status, still.reason) == ("withdrawn", "it leaks")
