"""Random histories of a repository: what a plan says of each engine is what the run then does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.goldens import assert_golden
from support.histories import GPUS, History, usable
from support.models import SMALL
from support.paths import MANIFESTS
from support.records import (
    engine_entry,
    model_index,
)

from builders.jobs import scratch
from builders.planning import decision as deciding
from builders.planning.decision import Action
from builders.planning.plan import plan_farm
from builders.planning.report import PlannedEngine, make_plan, matrix
from builders.publish import index as listing
from builders.publish import records
from builders.publish.tolerances import stated_tolerance
from builders.recipe import export_form
from builders.run import farm, regressions
from builders.run.summary import Summary
from zoo.repository.files import RecordFiles
from zoo.schema.floors import OwnTolerance, looser_by
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.layout import record_key
from zoo.schema.manifest import Manifest, load_manifests
from zoo.schema.records import (
    FailureReason,
    FailureRecord,
    Record,
    Retry,
    Status,
)
from zoo.schema.status import status_of
from zoo.schema.targets import cell_of
from zoo.util.errors import MissError

HISTORIES, PARTS = 2000, 4
"""How many are generated, and by how many tests, which two processes share."""


EVENTS: dict[str, st.SearchStrategy[Any]] = {
    "gpus": st.sampled_from(
        [("cpu",), ("sm80", "sm86"), ("sm86", "sm89"), ("sm80",), ("sm86",), GPUS]
    ),
    "here": st.sampled_from([("cpu",), ("cpu", "sm86"), ()]),
    "version": st.integers(0, 1),
    "photos": st.integers(0, 1),
    "builder": st.sampled_from([{}, {"optimization_level": "5"}]),
    "floors": st.sampled_from([0.5, 0.9, 0.99]),
    "cosine": st.sampled_from([0.95, 0.99999]),
    "error": st.sampled_from([0.005, 0.04]),
    "ranges": st.booleans(),
    "crop": st.sampled_from([0.875, 0.5]),
    "batches": st.sampled_from([64, 128]),
    "method": st.sampled_from(["row-wise-2", "one that sees more"]),
    "passes": st.booleans(),
    "dies": st.booleans(),
    "kills": st.booleans(),
    "absent": st.booleans(),
    "exportable": st.booleans(),
    "retry": st.booleans(),
    "counts": st.booleans(),
    "days": st.sampled_from([1, 40]),
    "take_back": st.none(),
    "lose_index": st.none(),
    "run": st.none(),
}

EVENT = st.one_of(st.tuples(st.just(name), EVENTS[name]) for name in [*EVENTS, "run", "gpus"])


def happen(history: History, name: str, value: Any, patch: pytest.MonkeyPatch) -> None:
    """Lets one thing happen."""
    if name == "run":
        check(history)
    elif name == "method":
        patch.setattr(export_form, "VERIFICATION_METHOD", value)
    elif name == "builder":
        history.builder = value if history.gpus != ("cpu",) else {}
    elif name == "gpus":
        history.gpus, history.builder = value, {}
    elif name in (
        "cosine",
        "error",
        "ranges",
        "passes",
        "dies",
        "kills",
        "absent",
        "exportable",
        "here",
    ):
        setattr(history.world, name, value)
    elif name in ("version", "photos", "retry", "counts"):
        setattr(history, name, value)
    elif value is None:
        getattr(history, name)()
    else:
        getattr(history, name)(value)


def check(history: History) -> None:
    """Plans, runs, and compares engine by engine; then plans again."""
    planned = history.plan()
    before = history.repository.model_index(SMALL)
    summary = history.run()
    check_losses(history, before, summary)
    check_replaced(history, before, summary)
    jobs = Counter(history.world.jobs)
    for engine in planned:
        _check_engine(engine, summary, jobs)
    if not {engine.action for engine in planned} & {*deciding.WORK}:
        assert not jobs, (planned, jobs)
    if not summary.failed:
        left = [engine for engine in history.plan() if engine.action in deciding.WORK]
        if not (history.retry and summary.disabled):
            assert left == [], (planned, summary, left)


def check_losses(history: History, before: ModelIndex | None, summary: Summary) -> None:
    """Checks that what was proven stays, unless it is disproven or other, and that a loss is told.

    An engine that leaves was withdrawn, is of other preprocessing than one that is verified now,
    misses the manifest's tolerance, or was verified with a looser one than the zoo's, for which the
    manifest gives no reason any more.
    """
    after = history.repository.model_index(SMALL)
    had, has = usable(before), usable(after)
    lost = had.keys() - has.keys()
    crop = history.manifest.preprocess.crop
    now_of_the_manifest = any(
        entry.preprocess.crop == crop for entries in has.values() for entry in entries
    )
    for cell in lost:
        for entry in had[cell]:
            attested = history.repository.attestations(entry.engine.sha256)
            withdrawn = status_of(attested)[0] is Status.WITHDRAWN
            other = entry.preprocess.crop != crop and now_of_the_manifest
            assert entry.verification is not None
            floor = history.manifest.kept_by(entry.precision).cosine  # type: ignore[arg-type]
            missed = any(row.worst_cosine < floor for row in entry.verification.batches)
            stated = OwnTolerance(**stated_tolerance(entry.verification).model_dump())
            looser = looser_by(entry.precision, stated)  # type: ignore[arg-type]
            unexplained = looser and after is not None and entry.precision not in after.own_floors
            assert withdrawn or other or missed or unexplained, (cell, entry, summary)
    indexes = {SMALL: before} if before else {}
    night = regressions.tell(
        make_plan("s", [], 0), summary, (), started="", finished="", commit=None,
        losses=regressions.lost(indexes, [after] if after else []),
    )  # fmt: skip
    told = {cell_of(job.target) for job in night.failed if job.target != "all"}
    assert lost <= told, (lost, night)
    assert not lost or regressions.issue(night) is not None


def check_replaced(history: History, before: ModelIndex | None, summary: Summary) -> None:
    """Checks that no verified engine gives way to a worse one that is made for the same purpose.

    What only makes an engine better or worse is, in these histories, the calibration photos.
    """
    after = history.repository.model_index(SMALL)
    assert after is not None or before is None
    had, has = usable(before), usable(after)
    for cell in had.keys() & has.keys():
        old, new = had[cell][0], has[cell][0]  # current ones come first
        attested = history.repository.attestations(old.engine.sha256)
        floor = history.manifest.kept_by(old.precision).cosine  # type: ignore[arg-type]
        assert old.verification is not None
        if (
            old.record == new.record  # it was verified again
            or error_of(new) <= error_of(old)
            or status_of(attested)[0] is Status.WITHDRAWN
            or any(row.worst_cosine < floor for row in old.verification.batches)
        ):
            continue
        assert purpose(history, old) != purpose(history, new), (cell, old, new)
    for engine in after.outdone if after else ():
        (published,) = {e.record for e in after.current for t in e.targets if t in engine.targets}
        assert published == engine.published
    outdone = regressions.outdone({SMALL: before} if before else {}, [after] if after else [])
    assert summary.outdone == outdone


def error_of(entry: EngineEntry) -> float:
    """Returns the relative error of a verified engine."""
    assert entry.verification is not None
    return max(row.worst_relative_error for row in entry.verification.batches)


def purpose(history: History, entry: EngineEntry) -> object:
    """Returns all inputs of an engine but the photos and what comes of them."""
    record = history.repository.record(SMALL, entry.record)
    assert record is not None
    export = history.repository.export(SMALL, record.export_key)
    assert export is not None
    build, made = record.inputs.model_dump(), export.inputs.model_dump()
    del build["onnx"]
    for field in ("calibration", "safety"):
        (made["lowering"] or {}).pop(field, None)
    return build, made


def _check_engine(engine: PlannedEngine, summary: Summary, jobs: Counter[tuple[str, str]]) -> None:
    """Compares what the plan said of an engine with what the run did."""
    name = f"{'+'.join(engine.archs)} {engine.label.rpartition('-')[2]}"
    label = f"{SMALL} {engine.label}"
    built = jobs["build", name]
    verified = sum(
        n
        for (kind, which), n in jobs.items()
        if kind == "verify" and _serves(which, engine.archs, name)
    )
    match engine.action:
        case Action.NOTHING:
            assert label in summary.current, (engine, summary)
        case Action.SIGN:
            assert label in (*summary.current, *summary.outdone), (engine, summary)
        case Action.VERIFY:
            assert verified, (engine, summary)
        case Action.BUILD:
            assert built, (engine, summary)
        case Action.EXPORT:
            assert jobs["export", ""], (engine, summary)
            # The ONNX may come out as it was, or there may be none: the run decides again then.
            assert label in _told(summary), (engine, summary)
        case Action.DISABLED:
            assert label in summary.disabled, (engine, summary)
        case Action.WITHDRAWN | Action.BLOCKED:
            assert label in summary.failed, (engine, summary)
    if engine.action not in (Action.BUILD, Action.EXPORT, Action.VERIFY):
        assert not built, (engine, summary)


def _told(summary: Summary) -> set[str]:
    """Labels of all engines that something came of, whatever they keep in higher precision."""
    done = (
        summary.published, summary.verified, summary.outdone, summary.current, summary.disabled,
        summary.failed,
    )  # fmt: skip
    return {label.removesuffix("-mixed") for labels in done for label in labels}


def _serves(which: str, archs: tuple[str, ...], name: str) -> bool:
    made, _, precision = which.partition(" ")
    return {*archs} <= {*made.split("+")} and precision == name.partition(" ")[2]


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load_manifests(MANIFESTS)[SMALL]


PARSED: dict[tuple[type[Record], bytes], Record] = {}
"""Records are immutable, and most histories read the same ones."""


def parse(files: RecordFiles, key: str, data: bytes | None, kind: type[Record]) -> Record | None:
    """Parses valid records once for all histories."""
    if data is None:
        return None
    if (kind, data) not in PARSED:
        PARSED[kind, data] = kind.model_validate_json(data)
    return PARSED[kind, data]


@contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """One folder for all jobs: making and deleting thousands takes longer than the histories.

    Its files are deleted, because some file systems write a file to disk that replaces another.
    """
    yield folder
    for file in folder.iterdir():
        if file.is_file():
            file.unlink()


@pytest.mark.parametrize("part", range(PARTS))
@settings(
    max_examples=HISTORIES // PARTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(EVENT, min_size=1, max_size=8))
@example([("floors", 0.5), ("run", None), ("floors", 0.99), ("exportable", False)])
def test_what_the_plan_says_is_what_the_run_does(
    manifest: Manifest, tmp_path: Path, part: int, events: list[tuple[str, Any]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records.provenance, "statement", lambda *_: {})
        patch.setattr(RecordFiles, "parse", parse)
        patch.setattr(farm, "manifest_source", lambda *_: None)  # starts git
        patch.setattr(scratch, "keep", lambda folder, kept: None)
        patch.setattr(scratch, "check_quarantine", lambda job, kept: None)
        patch.setattr(scratch, "scratch_folder", lambda repository: emptied(tmp_path))
        history = History(manifest, tmp_path)
        patch.setattr(records, "utc_now", lambda: history.desk.day.strftime(listing.TIME))
        for name, value in events:
            happen(history, name, value, patch)
        check(history)


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
