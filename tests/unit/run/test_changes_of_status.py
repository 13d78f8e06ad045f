"""Models whose engines have the same bytes, and what a run says of a status that others changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from support.fake_nights import LABEL, Night
from support.goldens import assert_golden
from support.models import SMALL

from builders.cli import build
from builders.jobs.progress import Display
from builders.planning.plan import plan_farm
from builders.publish import index as listing
from builders.publish.changes import changes
from builders.publish.records import reinstatement, withdrawal
from builders.run.summary import Summary
from zoo.schema.manifest import Manifest
from zoo.schema.records import Attestation, AttestationKind, RepositoryInfo, Status
from zoo.util.errors import LicenceError

TWIN = "twin"


@pytest.fixture
def night(manifests: dict[str, Manifest], tmp_path: Path) -> Night:
    """A night after two models of the same weights were published."""
    night = Night(manifests[SMALL], tmp_path)
    night.add(TWIN)
    assert len(night.run("1.32.0").published) == 2
    return night


def statuses(night: Night) -> dict[str, str]:
    indexes = night.repository.model_indexes()
    return {index.model: entry.status for index in indexes for entry in index.current}


def attest(night: Night, hour: int, attestation: Attestation) -> None:
    time = night.desk.day.replace(year=2027, hour=hour).strftime(listing.TIME)
    night.repository.attest(attestation.model_copy(update={"time": time}))


def test_a_status_that_others_changed_is_said_and_holds_for_all_models(night: Night) -> None:
    engine = night.entry.engine.sha256
    attest(night, 1, withdrawal(engine, "it leaks"))
    for model in (SMALL, TWIN):
        night.desk.send_again(model)
    assert statuses(night) == {SMALL: "withdrawn", TWIN: "withdrawn"}
    verified = next(
        one for one in night.repository.attestations(engine) if one.kind is AttestationKind.VERIFIED
    )
    attest(night, 2, verified)
    attest(night, 3, reinstatement(engine, "it does not"))
    summary = night.run("1.32.0", only=SMALL)
    assert summary.current == [f"{SMALL} {LABEL}"]
    assert statuses(night) == {SMALL: "verified", TWIN: "verified"}
    assert_golden("run/other-status", "\n".join(summary.changes))
    assert night.run("1.32.0").changes == []  # once


def test_a_withdrawal_is_said_once_by_a_sentence_or_as_a_failure(night: Night) -> None:
    attest(night, 1, withdrawal(night.entry.engine.sha256, "it leaks"))
    told = night.run("1.32.0", only=SMALL).changes
    assert_golden("run/withdrawn-meanwhile", "\n".join(told))
    assert statuses(night) == {SMALL: "withdrawn", TWIN: "withdrawn"}
    summary = night.run("1.32.0")
    assert summary.failed.keys() == {f"{SMALL} {LABEL}", f"{TWIN} {LABEL}"}
    assert summary.changes == []


def test_an_outcome_that_is_reported_is_not_said_again(night: Night) -> None:
    before = night.index
    (entry,) = before.engines
    after = before.model_copy(
        update={"engines": (entry.model_copy(update={"status": Status.PENDING}),)}
    )
    assert len(changes(before, after)) == 1
    assert changes(before, after, [f"{SMALL} {LABEL}"]) == []
    assert len(changes(before, after, [f"{SMALL} sm86-trt11.4-fp32"])) == 1


def test_a_plan_counts_what_a_licence_withdraws_of_all_models(night: Night) -> None:
    manifest = night.request.manifests[SMALL].model_copy(update={"licence": "cc-by-nc-4.0"})
    night.request = replace(night.request, manifests={SMALL: manifest}, weights="manifest")
    night.repository.store.put("repository.json", RepositoryInfo(kind="release").to_json())
    (engine,) = plan_farm(night.repository, night.request).engines
    assert_golden("planning/licence-withdraws-twins", engine.reason)
    assert night.run("1.32.0").failed
    assert statuses(night) == {SMALL: "withdrawn", TWIN: "withdrawn"}
    (engine,) = plan_farm(night.repository, night.request).engines
    assert TWIN not in engine.reason


def test_a_run_prints_what_the_index_says_differently(capsys: pytest.CaptureFixture[str]) -> None:
    summary = Summary(current=[f"{SMALL} {LABEL}"], changes=["the index now says this"])
    assert build._print_summary(summary, "store", Display(Console(width=200))) == 0
    assert_golden("run/summary-of-changes", capsys.readouterr().out)


def test_a_night_of_a_withheld_model_alone_is_no_failure() -> None:
    """``zoo`` raises the error when all is done; a night reports and goes on."""
    summary = Summary(withheld={SMALL: LicenceError("not on the list")})
    assert build._print_summary(summary, "store", Display(Console(quiet=True))) == 0
    assert summary.is_nothing_else
