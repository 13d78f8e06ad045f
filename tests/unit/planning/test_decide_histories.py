"""Random histories of a repository: what a plan says of each engine is what the run then does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.goldens import assert_golden
from support.histories import History, usable
from support.models import SMALL
from support.paths import MANIFESTS
from support.random_histories import EVENT, check, follow, happen
from support.records import engine_entry, model_index

from builders.planning.decision import Action
from builders.planning.plan import plan_farm
from builders.planning.report import make_plan, matrix
from builders.run import regressions
from builders.run.summary import Summary
from zoo.schema.layout import record_key
from zoo.schema.manifest import Manifest, load_manifests
from zoo.schema.records import (
    FailureReason,
    FailureRecord,
    Retry,
)
from zoo.util.errors import MissError


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load_manifests(MANIFESTS)[SMALL]


@settings(
    max_examples=200,  # 2,000 are in tests/integration/planning
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(EVENT, min_size=1, max_size=8))
@example([("floors", 0.5), ("run", None), ("floors", 0.99), ("exportable", False)])
def test_what_the_plan_says_is_what_the_run_does(
    manifest: Manifest, tmp_path: Path, events: list[tuple[str, Any]]
) -> None:
    follow(manifest, tmp_path, events)


@pytest.mark.parametrize("counts", [True, False])
def test_a_quarantined_build_is_planned_as_disabled(
    counts: bool, manifest: Manifest, tmp_path: Path
) -> None:
    history = History(manifest, tmp_path)
    history.counts, history.world.kills = counts, True
    assert {engine.action for engine in history.plan()} == {Action.EXPORT}
    check(history)
    assert {engine.action for engine in history.plan()} == {Action.DISABLED}
    history.world.kills = False
    check(history)
    assert history.world.jobs == []
    records = [entry.key for entry in history.repository.store.list("failures/")]
    found = [history.repository.read(key, FailureRecord) for key in records]
    assert {(one.reason, one.retry) for one in found if one} == {
        (FailureReason.CRASHED, Retry.OTHER_INPUTS)
    }
    history.retry = True
    check(history)
    history.retry = False
    assert {engine.action for engine in history.plan()} == {Action.NOTHING}


def test_two_gpu_sets_and_forty_days(manifest: Manifest, tmp_path: Path) -> None:
    history = History(manifest, tmp_path)
    for gpus in (("sm80", "sm86"), ("sm86", "sm89")):
        history.gpus = gpus
        check(history)
    newer = serving_now(history, "sm89")
    for days in (2, 40):
        history.days(days)
        history.gpus = ("sm80",)
        plan = plan_farm(history.repository, history.request())
        (engine,) = plan.engines
        assert engine.action is Action.NOTHING
        assert matrix(plan) == {"include": []}  # what a night would be split into
        check(history)
        # The engine for sm80 was made for sm86 too, which a newer one serves: it stays so.
        assert serving_now(history, "sm86") == newer


Attempt = tuple[str, Any]

DISPLACING: dict[str, tuple[str, list[Attempt], list[Attempt]]] = {
    "photos-of-few-scenes": (
        "cpu-ort1.32-int8", [], [("photos", 1), ("exportable", False)],
    ),
    "stricter-tolerance-that-it-meets": (
        "cpu-ort1.32-int8", [], [("floors", 0.99), ("exportable", False)],
    ),
    "engine-of-other-preprocessing-misses": (
        "cpu-ort1.32-fp32", [], [("crop", 0.5), ("passes", False)],
    ),
    "engine-of-other-preprocessing-crashes": (
        "cpu-ort1.32-int8", [], [("crop", 0.5), ("dies", True)],
    ),
    "engine-of-other-preprocessing-finds-no-worker": (
        "cpu-ort1.32-fp32", [], [("crop", 0.5), ("absent", True)],
    ),
    "engine-of-other-preprocessing-is-not-run": (
        "sm86-rtx1.7-fp16", [("gpus", ("sm86",)), ("here", ("cpu", "sm86"))],
        [("crop", 0.5), ("here", ())],
    ),
    "one-of-two-gpus": (
        "sm86-rtx1.7-fp16", [("gpus", ("sm80", "sm86")), ("here", ("cpu", "sm86"))],
        [("gpus", ("sm86",)), ("photos", 1), ("exportable", False)],
    ),
    "while-a-newer-one-waits-to-be-run": (
        "sm86-rtx1.7-fp16", [("gpus", ("sm86",)), ("here", ("cpu", "sm86"))],
        [("version", 1), ("here", ()), ("run", None), ("photos", 1), ("exportable", False)],
    ),
}  # fmt: skip
"""Attempts that fail: the target, what is done before the engine is published, and after that."""


@pytest.mark.parametrize("name", DISPLACING)
def test_a_failed_attempt_displaces_nothing(
    name: str, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, before, after = DISPLACING[name]
    history = History(manifest, tmp_path)
    for event, value in [*before, ("run", None)]:
        happen(history, event, value, monkeypatch)
    (proven,) = usable(history.repository.model_index(SMALL))[target]
    for event, value in [*after, ("run", None), ("run", None), ("days", 40), ("run", None)]:
        happen(history, event, value, monkeypatch)
    records = [
        entry.record for entry in usable(history.repository.model_index(SMALL)).get(target, [])
    ]
    assert records == [proven.record]
    index = history.repository.model_index(SMALL)
    assert index is not None
    assert index.preprocess.crop == proven.preprocess.crop  # the card describes what is served


WORSE: dict[str, tuple[str, list[Attempt], list[Attempt], bool]] = {
    "photos": ("cpu-ort1.32-int8", [], [("photos", 1)], True),
    "photos-on-one-of-two-gpus": (
        "sm86-rtx1.7-fp16", [("gpus", ("sm80", "sm86")), ("here", ("cpu", "sm86"))],
        [("photos", 1)], True,
    ),
    "photos-and-run-later": (
        "sm86-rtx1.7-fp16", [("gpus", ("sm86",)), ("here", ("cpu", "sm86"))],
        [("photos", 1), ("here", ()), ("run", None), ("here", ("cpu", "sm86"))], True,
    ),
    "a-newer-runtime": ("cpu-ort1.32-int8", [], [("version", 1)], False),
    "other-batches": ("cpu-ort1.32-int8", [], [("batches", 128)], False),
    "another-tolerance": ("cpu-ort1.32-int8", [], [("floors", 0.9), ("photos", 1)], False),
}  # fmt: skip
"""Engines that are verified and worse: the target, what is done before the better one is published,
what is done after it, and whether the better one stays."""


@pytest.mark.parametrize("name", WORSE)
def test_a_worse_engine_replaces_only_one_that_is_not_asked_for(
    name: str, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, before, after, stays = WORSE[name]
    history = History(manifest, tmp_path)
    history.world.ranges = True
    for event, value in [*before, ("run", None)]:
        happen(history, event, value, monkeypatch)
    better = usable(history.repository.model_index(SMALL))[target][0]
    for event, value in [("error", 0.04), *after, ("run", None), ("run", None), ("days", 40)]:
        happen(history, event, value, monkeypatch)
    given_out = usable(history.repository.model_index(SMALL))[target][0]
    assert (given_out.record == better.record) is stays
    (planned,) = (engine for engine in history.plan() if target.rsplit("-")[-1] in engine.label)
    assert planned.action is Action.NOTHING
    assert bool(planned.reason) is stays


def test_an_outdone_engine_is_published_when_the_better_one_is_withdrawn(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(manifest, tmp_path)
    history.gpus, history.world.here, history.world.ranges = ("sm86",), ("cpu", "sm86"), True
    target = "sm86-rtx1.7-fp16"
    check(history)
    better = usable(history.repository.model_index(SMALL))[target][0]
    history.world.error, history.photos = 0.04, 1
    (planned,) = history.plan()
    assert_golden("planning/contested", planned.reason)
    check(history)
    (planned,) = history.plan()
    assert_golden("planning/outdone", planned.reason.replace(better.created[:10], "DAY"))
    index = history.repository.model_index(SMALL)
    assert index is not None
    night = regressions.tell(
        make_plan("s", [], 0), Summary(), (), started="2026-01-02T00:00:00Z", finished="",
        commit=None, outdone=regressions.outdone({}, [index]),
    )  # fmt: skip
    issue = regressions.issue(night)
    assert issue is not None
    assert_golden("planning/outdone-issue", issue[1])
    history.take_back()
    check(history)
    after = history.repository.model_index(SMALL)
    assert after is not None
    assert usable(after)[target][0].record == index.outdone[0].record
    assert after.outdone == ()


def test_a_deleted_outdone_engine_is_not_built_again(manifest: Manifest, tmp_path: Path) -> None:
    history = History(manifest, tmp_path)
    history.gpus, history.world.here, history.world.ranges = ("sm86",), ("cpu", "sm86"), True
    history.run()
    history.world.error, history.photos = 0.04, 1
    history.run()
    index = history.repository.model_index(SMALL)
    assert index is not None
    (outdone,) = index.outdone
    history.repository.store.delete(record_key(SMALL, outdone.record))
    check(history)
    assert history.world.jobs == []


def test_a_missed_export_of_a_published_precision_fails_the_run_once(
    manifest: Manifest, tmp_path: Path
) -> None:
    history = History(manifest, tmp_path)
    history.run()
    history.photos, history.world.exportable = 1, False
    summary = history.run()
    assert list(summary.failed) == [f"{SMALL} cpu-ort1.32-int8"]
    (error,) = summary.failed.values()
    assert isinstance(error, MissError)
    (entry,) = usable(history.repository.model_index(SMALL))["cpu-ort1.32-int8"]
    assert_golden("planning/published-stays", error.message.replace(entry.created[:10], "DAY"))
    again = history.run()
    assert (again.failed, list(again.disabled)) == ({}, [f"{SMALL} cpu-ort1.32-int8"])


def test_an_engine_that_misses_a_stricter_tolerance_leaves_and_the_night_fails(
    manifest: Manifest, tmp_path: Path
) -> None:
    history = History(manifest, tmp_path)
    history.world.cosine = 0.95
    history.floors(0.9)
    history.run()
    before = history.repository.model_index(SMALL)
    assert before is not None
    history.floors(0.99)
    history.world.exportable = False
    plan = plan_farm(history.repository, history.request())
    summary = history.run()
    after = history.repository.model_index(SMALL)
    assert after is not None
    assert "cpu-ort1.32-int8" not in usable(after)
    assert [cell.targets for cell in after.disabled] == [("cpu-ort1.32-int8",)]
    night = regressions.tell(
        plan, summary, (), started="2026-01-02T00:00:00Z", finished="", commit=None,
        losses=regressions.lost({SMALL: before}, [after]),
    )  # fmt: skip
    assert sorted(job.target for job in night.failed) == ["cpu-ort1.32-fp32", "cpu-ort1.32-int8"]
    # The int8 engine was not run again: its loss is told all the same, and once.
    text = regressions.issue(night)
    assert text is not None
    assert_golden("planning/lost", text[1])


def test_an_engine_that_was_lost_without_a_failed_job_is_told(manifest: Manifest) -> None:
    index = model_index(engine_entry("cpu-ort1.32-fp32"), engine_entry("sm86-rtx1.7-fp16"))
    gone = index.model_copy(update={"engines": index.engines[:1]})
    withdrawn = index.engines[1].model_copy(update={"status": "withdrawn", "reason": "it is bad"})
    refused = gone.model_copy(update={"engines": (index.engines[0], withdrawn)})
    assert regressions.lost({index.model: index}, [index]) == ()
    losses = {
        name: regressions.lost({index.model: index}, after)
        for name, after in {"gone": [gone], "model": [], "withdrawn": [refused]}.items()
    }
    assert [job.target for job in losses["gone"]] == ["sm86-rtx1.7-fp16"]
    assert len(losses["model"]) == 2
    assert "it is bad" in losses["withdrawn"][0].reason
    superseded = index.engines[1].model_copy(update={"superseded": "2026-01-01T00:00:00.000000Z"})
    kept = gone.model_copy(update={"engines": (index.engines[0], superseded)})
    assert regressions.lost({index.model: index}, [kept]) == ()  # clients still get it


def serving_now(history: History, arch: str) -> str:
    """Returns the record of the engine that the index gives for a GPU."""
    index = history.repository.model_index(SMALL)
    assert index is not None
    (record,) = {
        entry.record
        for entry in index.current
        if any(label.startswith(f"{arch}-") for label in entry.targets)
    }
    return record
