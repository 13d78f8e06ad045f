"""What a person decides about an engine: withdrawn or reinstated for every model, or for none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.commands import ZooFarm
from support.goldens import assert_golden
from support.signed_repository import LABEL, ROW, TOLERANCE, Signed

from builders.cli import repository as cli_repository
from builders.publish import signer
from builders.publish.keys import KeyRing
from builders.publish.publisher import Published
from builders.run.reverify import Reverifier
from zoo.repository.repository import Repository
from zoo.schema.records import BuildRecord
from zoo.util.clock import utc_now
from zoo.util.errors import LicenceError, RepositoryError, TrustError, UsageError

FORBIDDEN = "cc-by-nc-4.0"

Decide = Callable[..., int]


@pytest.fixture
def decide(signed: Signed, zoo_farm: ZooFarm, monkeypatch: pytest.MonkeyPatch) -> Decide:
    """Runs ``withdraw`` or ``reinstate`` of a CPU engine; no process checks, no engine runs."""

    def sign(repository: Repository, ring: KeyRing, *, refresh: bool = False) -> Published:
        return signed.publish(refresh=refresh)

    monkeypatch.setattr(signer, "sign_with", sign)
    monkeypatch.setattr(cli_repository, "sign_with", sign)
    monkeypatch.setattr(Reverifier, "why_not", lambda self, entry: "it requires a GPU")
    place = ["--store", signed.store.url, "--keys", str(signed.folder / "keys")]

    def run(command: str, model: str = "m") -> int:
        return zoo_farm(command, model, LABEL, *place, "--reason", "a test says so")

    return run


def statuses(signed: Signed) -> dict[str, str]:
    """The status of each model's only engine, as signed."""
    indexes = signed.repository.model_indexes()
    return {index.model: entry.status for index in indexes for entry in index.engines}


def stored(signed: Signed, record: BuildRecord) -> list[str]:
    return [entry.key for entry in signed.store.list(f"attestations/{record.engine.sha256}/")]


def sign_licence(signed: Signed, record: BuildRecord, licence: str) -> None:
    signed.propose(record, licence=licence)
    assert not signed.publish().refused


def test_what_a_licence_forbids_is_not_reinstated_and_nothing_is_left_behind(
    signed: Signed, decide: Decide, capsys: pytest.CaptureFixture[str]
) -> None:
    record = signed.release()
    assert decide("withdraw") == 0
    signed.attest(record.engine, time=utc_now())
    sign_licence(signed, record, FORBIDDEN)
    before = stored(signed, record)
    assert decide("reinstate") == LicenceError.exit_code
    assert_golden("publish/reinstate-forbidden", capsys.readouterr().err)
    assert stored(signed, record) == before
    sign_licence(signed, record, "apache-2.0")  # corrected back
    assert statuses(signed) == {"m": "withdrawn"}
    assert decide("reinstate") == 0
    assert statuses(signed) == {"m": "verified"}


def test_what_the_publisher_would_refuse_is_not_reinstated(
    signed: Signed, decide: Decide, capsys: pytest.CaptureFixture[str]
) -> None:
    record = signed.release()
    assert decide("withdraw") == 0
    numbers = {"batches": [{**ROW, "worst_cosine": 0.2}], "tolerance": TOLERANCE}
    signed.attest(record.engine, key="7" * 64, time=utc_now(), body=numbers)
    before = stored(signed, record)
    assert decide("reinstate") == RepositoryError.exit_code
    assert "cosine" in capsys.readouterr().err
    assert stored(signed, record) == before


@pytest.mark.parametrize(
    ("command", "status"), [("withdraw", "verified"), ("reinstate", "withdrawn")]
)
def test_what_could_not_be_signed_does_not_take_effect_later(
    command: str, status: str, signed: Signed, decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = signed.release()
    if command == "reinstate":
        assert decide("withdraw") == 0
        signed.attest(record.engine, time=utc_now())

    def refuse(*_: object, **__: object) -> Published:
        raise TrustError("the publisher key was rotated")

    before = stored(signed, record)
    with monkeypatch.context() as patch:
        patch.setattr(signer, "sign_with", refuse)
        assert decide(command) == TrustError.exit_code
    assert stored(signed, record) == before
    signed.propose(record)
    signed.publish()
    assert statuses(signed) == {"m": status}


def test_a_decision_that_was_signed_stays_although_another_candidate_is_refused(
    signed: Signed, decide: Decide
) -> None:
    signed.release()
    signed.propose(signed.build("other", b"other"), licence=FORBIDDEN)
    assert decide("withdraw") == RepositoryError.exit_code
    signed.propose(signed.repository.records("m")[0])
    signed.publish()
    assert statuses(signed) == {"m": "withdrawn"}


def test_models_with_the_same_engine_are_withdrawn_and_reinstated_together(
    signed: Signed, decide: Decide, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in ("m", "twin", "other"):
        record = signed.release(model, b"other engine" if model == "other" else b"engine")
    assert decide("withdraw") == 0
    assert statuses(signed) == {"m": "withdrawn", "twin": "withdrawn", "other": "verified"}
    assert_golden("publish/withdrawn-together", capsys.readouterr().out)
    signed.attest(signed.repository.records("m")[0].engine, time=utc_now())
    assert decide("reinstate", "twin") == 0
    assert statuses(signed) == {"m": "verified", "twin": "verified", "other": "verified"}
    assert_golden("publish/reinstated-together", capsys.readouterr().out)
    assert len(stored(signed, record)) == 1  # the other engine's


def test_a_licence_of_one_model_keeps_the_engine_of_all_withdrawn(
    signed: Signed, decide: Decide, capsys: pytest.CaptureFixture[str]
) -> None:
    signed.release("m")
    twin = signed.release("twin")
    assert decide("withdraw") == 0
    sign_licence(signed, twin, FORBIDDEN)
    signed.attest(twin.engine, time=utc_now())
    before = stored(signed, twin)
    assert decide("reinstate", "m") == LicenceError.exit_code
    assert "twin" in capsys.readouterr().err
    assert stored(signed, twin) == before
    assert statuses(signed) == {"m": "withdrawn", "twin": "withdrawn"}


def test_a_publisher_says_which_status_and_facts_it_changes(
    signed: Signed, decide: Decide, zoo_farm: ZooFarm, capsys: pytest.CaptureFixture[str]
) -> None:
    record = signed.release()
    body = {"reason": "it leaks", "by": "a maintainer"}
    signed.attest(record.engine, kind="withdrawn", time=utc_now(), body=body)
    signed.propose(record, licence="mit")
    place = ["--store", signed.store.url, "--keys", str(signed.folder / "keys")]
    assert zoo_farm("publish", *place) == 0
    assert_golden("publish/changes", capsys.readouterr().out)
    signed.propose(record, licence="mit")
    assert signed.publish().changes == []


@pytest.mark.parametrize("command", ["withdraw", "reinstate"])
def test_a_misspelt_model_is_named(
    command: str, signed: Signed, zoo_farm: ZooFarm, capsys: pytest.CaptureFixture[str]
) -> None:
    signed.release("resnet50")
    place = ["--store", signed.store.url, "--keys", str(signed.folder / "keys")]
    status = zoo_farm(command, "resnet5", LABEL, *place, "--reason", "r")
    assert status == UsageError.exit_code
    assert_golden("publish/unknown-model", capsys.readouterr().err)
