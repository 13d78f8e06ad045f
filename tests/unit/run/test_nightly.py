"""A night: an engine stays until a new one is verified; one that misses tolerance is disabled."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from support.fake_nights import LABEL, Night
from support.goldens import assert_golden, raises_golden
from support.hub_manifests import copy_open
from support.models import SMALL

from builders.cli import main
from builders.cli import nightly as cli_nightly
from builders.history import nights
from builders.planning.decision import Cause
from builders.planning.plan import plan_farm
from builders.planning.report import make_plan
from builders.publish import index
from builders.run import regressions
from builders.run.summary import Summary
from zoo.catalog.night import Drift, FailedJob, NightlyRun, read_nightly
from zoo.cli.main import run_cli
from zoo.repository.repository import Repository
from zoo.schema.layout import run_key
from zoo.schema.manifest import Manifest
from zoo.schema.precisions import Precision
from zoo.schema.records import RepositoryInfo
from zoo.schema.targets import EngineName
from zoo.stores import MemoryStore, open_store
from zoo.util.errors import JobError, LicenceError, UsageError


@pytest.fixture
def night(manifests: dict[str, Manifest], tmp_path: Path) -> Night:
    return Night(manifests[SMALL], tmp_path)


def test_yesterdays_engine_stays_until_todays_is_proven(night: Night) -> None:
    assert night.run("1.32.0").published
    old = night.entry
    night.builder.good = False
    (error,) = night.run("1.32.1").failed.values()
    assert "row 3 is far" in str(error)
    assert night.entry == old
    jobs = night.builder.jobs
    (reason,) = night.run("1.32.1").disabled.values()  # from now on it is not tried
    assert_golden("run/missed", reason)
    assert night.builder.jobs == jobs
    assert night.entry == old
    assert night.index.disabled == ()  # there is an engine for the target all the same
    night.builder.good = True
    assert night.run("1.32.2").published  # other inputs are tried
    assert night.entry.toolchain.version == "1.32.2"
    assert [one.record for one in night.index.engines if one.superseded] == [old.record]


def test_a_cell_without_an_engine_is_disabled_and_comes_back(night: Night) -> None:
    night.builder.dies = True
    for _ in range(3):
        assert night.run("1.32.0", counts=False).failed  # a maintainer who tries disables nothing
    night.builder.absent = True
    for _ in range(3):
        assert night.run("1.32.0").failed  # nor does a farm that is not there
    night.builder.absent = False
    assert night.run("1.32.0").failed
    assert night.run("1.32.0").disabled
    (cell,) = night.index.disabled
    assert (cell.targets, cell.stage) == ((LABEL,), "build")
    assert_golden("run/failed-twice", cell.reason)
    night.builder.dies = False
    assert night.run("1.32.0").disabled
    assert night.run("1.32.0", retry=True).published
    assert night.index.disabled == ()
    assert night.entry.status == "verified"
    assert night.run("1.32.0").current


def test_other_floors_try_a_disabled_cell_again(night: Night) -> None:
    night.builder.good = False
    assert night.run("1.32.0").failed
    assert night.run("1.32.0").disabled
    night.builder.good = True
    assert night.run("1.32.0").disabled
    night.loosen(Precision.FP32)
    assert night.run("1.32.0").published
    assert night.index.disabled == ()


def test_a_licence_that_forbids_publishing_withdraws_what_is_published(night: Night) -> None:
    night.run("1.32.0")
    night.run("1.32.1")
    manifest = night.request.manifests[SMALL].model_copy(update={"licence": "cc-by-nc-4.0"})
    night.request = replace(night.request, manifests={SMALL: manifest}, weights="manifest")
    night.repository.store.put("repository.json", RepositoryInfo(kind="release").to_json())
    (engine,) = plan_farm(night.repository, night.request).engines
    assert_golden("planning/licence-withdraws", engine.reason)
    (error,) = night.run("1.32.1").failed.values()
    assert isinstance(error, LicenceError)
    assert night.index.licence == "cc-by-nc-4.0"
    assert [change.after for change in night.index.corrected] == ["cc-by-nc-4.0"]
    assert [entry.status for entry in night.index.engines] == ["withdrawn", "withdrawn"]
    assert "cc-by-nc-4.0" in (night.entry.reason or "")
    engine = night.entry.engine.sha256
    attested = night.repository.attestations(engine)
    plan = plan_farm(night.repository, night.request)
    summary = night.run("1.32.1")
    assert night.repository.attestations(engine) == attested  # withdrawn once
    assert_golden("planning/licence-withdrew", plan.engines[0].reason)
    assert not summary.failed  # nor is there an alarm every night
    assert_golden("run/licence-withdrew", summary.withheld[SMALL].message)
    run = regressions.tell(plan, summary, (), started="", finished="", commit=None)
    assert regressions.issue(run) is None


@pytest.mark.parametrize("fact", ["licence", "origin", "title"])
def test_a_corrected_fact_reaches_the_index_without_a_build(night: Night, fact: str) -> None:
    night.run("1.32.0")
    before, jobs = night.index, night.builder.jobs
    manifest = night.request.manifests[SMALL]
    value = "https://example.org/weights" if fact == "origin" else "bsd-3-clause"
    changed = {fact: value}
    if fact == "title":
        changed = {"catalog": manifest.catalog.model_copy(update=changed)}
    night.request = replace(night.request, manifests={SMALL: manifest.model_copy(update=changed)})
    (note,) = plan_farm(night.repository, night.request).notes
    assert fact in note
    assert value in note
    summary = night.run("1.32.0")
    assert summary.current
    (told,) = summary.changes
    assert_golden(f"run/corrected-{fact}", told)
    assert plan_farm(night.repository, night.request).notes == ()
    assert night.builder.jobs == jobs
    (change,) = night.index.corrected
    assert (change.fact, change.before) == (fact, before.facts[fact])
    assert change.after == night.index.facts[fact] == value
    assert night.index.engines == before.engines
    night.run("1.32.0")
    assert night.index.corrected == (change,)


def test_a_proven_engine_outlives_its_time_while_the_newer_one_is_not_proven(night: Night) -> None:
    night.run("1.32.0")
    old, new = night.entry, "b" * 64
    night.run("1.32.1")
    newer = night.entry
    pending = newer.model_copy(update={"status": "pending", "record": new})
    superseded = old.model_copy(update={"superseded": "2026-01-01T00:00:00.000000Z"})
    later = datetime(2027, 1, 1, tzinfo=timezone.utc)
    assert list(index.still_needed([superseded], [pending], later)) == [superseded]
    assert list(index.still_needed([superseded], [newer], later)) == []


def test_what_became_worse_is_told(night: Night) -> None:
    night.run("1.32.0")
    before = {SMALL: night.index}
    night.builder.ms, night.builder.cosine = 1.05, 0.999985
    night.run("1.32.1")
    assert regressions.regressions(before, [night.index]) == ()
    night.builder.ms, night.builder.cosine = 1.2, 0.99991
    summary = night.run("1.32.2")
    found = regressions.regressions(before, [night.index])
    assert {(one.measure, one.batch) for one in found} >= {("latency", 1), ("cosine", 1)}
    run = regressions.tell(
        make_plan("s", [], 0), summary, found, started="2026-01-02T00:00:00Z",
        finished="2026-01-02T01:00:00Z", commit=None,
    )  # fmt: skip
    text = regressions.issue(run)
    assert text is not None
    title, body = text
    assert title.startswith("Nightly of 2026-01-02: ")
    assert f"| {SMALL} {LABEL} | latency | 1 | 1.000 ms | 1.200 ms | +20.0% |" in body
    calm = run.model_copy(update={"regressions": (), "failed": ()})
    assert regressions.issue(calm) is None


@pytest.mark.parametrize(
    ("before", "after", "is_worse"),
    [
        ((1.0, 0.01), (1.2, 0.01), True),
        ((1.0, 0.15), (1.2, 0.01), False),  # what was there before was noise
        ((1.0, 0.01), (1.2, 0.15), False),  # or what came after
        ((1.0, 0.01), (1.11, 0.01), False),  # the nearest ends are to be 10% apart
        ((1.0, 0.01), (15.0, 0.9), True),
    ],
)
def test_a_slowdown_is_told_when_its_whole_interval_shows_it(
    before: tuple[float, float], after: tuple[float, float], is_worse: bool, night: Night
) -> None:
    night.builder.ms, night.builder.noise = before
    night.run("1.32.0")
    index = night.index
    night.builder.ms, night.builder.noise = after
    night.run("1.32.1")
    assert bool(regressions.regressions({SMALL: index}, [night.index])) == is_worse


def test_times_of_old_versions_without_an_interval_tell_nothing() -> None:
    drift = Drift(
        model=SMALL, target=LABEL, record="0" * 64, measure="latency", batch=1, before=1, after=15
    )
    assert not regressions._is_regression(drift)
    ratio = {"measure": "ratio", "before": 2.0, "after": 1.0, "before_interval": (1.9, 2.1)}
    for interval, is_worse in (((0.9, 1.1), True), ((0.9, 1.8), False)):
        changed = drift.model_copy(update={**ratio, "after_interval": interval})
        assert regressions._is_regression(changed) == is_worse


def test_a_publisher_tells_what_became_worse(night: Night, tmp_path: Path) -> None:
    path = tmp_path / "issue.md"
    night.run("1.32.0")
    before = night.index
    night.builder.ms = 1.2
    night.run("1.32.1")
    nights.add_run(night.repository, told("a", "2026-01-02T03:00:00Z"), "7")
    assert cli_nightly.report_regressions(night.repository, [before], path)
    assert f"| {SMALL} {LABEL} | latency | 1 | 1.000 ms | 1.200 ms | +20.0% |" in path.read_text()
    run = nights.last_night(night.repository)
    assert run is not None
    assert [one.model for one in run.failed] == ["a"]
    assert {one.measure for one in run.regressions} == {"latency"}
    assert cli_nightly.report_regressions(night.repository, [night.index], path) == (0, 0)
    assert not path.exists()


def told(model: str, finished: str) -> NightlyRun:
    job = FailedJob(model=model, target="t", reason="no memory", command="zoo-farm x")
    return NightlyRun(
        started="2026-01-02T02:00:00Z", finished=finished, commit="c", failed=(job,),
        planned={"build": 1}, current=2,
    )  # fmt: skip


def test_the_report_has_all_runs_of_the_last_night(tmp_path: Path) -> None:
    repository, said = Repository(MemoryStore()), list[str]()
    assert nights.last_night(repository) is None
    nights.add_run(repository, told("old", "2026-01-01T03:00:00Z"), "z-the-night-before")
    nights.add_run(repository, told("a", "2026-01-02T03:00:00Z"), "7")
    nights.add_run(repository, told("b", "2026-01-02T04:00:00Z"), "7")
    repository.store.put(run_key("7", "20260102T050000Z", "0" * 64), b"x" * (2 << 20))
    run = nights.last_night(repository, said.append)
    assert run is not None
    assert [one.model for one in run.failed] == ["a", "b"]
    assert (run.runs, run.finished, run.commit) == (2, "2026-01-02T04:00:00Z", "c")
    assert (run.planned, run.current) == ({"build": 2}, 4)
    assert len(said) == 1
    with raises_golden(UsageError, "run/name-of-a-night", match=r"\.\./up"):
        nights.checked_night("../up")


def test_a_failure_is_told_with_the_command_that_shows_it_again(night: Night) -> None:
    night.builder.good = False
    summary = night.run("1.32.0")
    (job,) = regressions.failed_jobs(make_plan("s", [], 0), summary)
    assert (job.model, job.target) == (SMALL, LABEL)
    assert "zoo-farm worker" in job.command
    assert "job.json" in job.command
    known = regressions.failed_jobs(make_plan("s", [], 0), Summary(disabled={"m t": "no int8"}))
    assert known == ()


_WORSE = Drift(
    model=SMALL, target=LABEL, record="0" * 64, measure="latency", batch=1, before=1, after=2
)


@pytest.mark.parametrize(
    ("kind", "found", "title_end"),
    [
        ("regressions", (_WORSE,), ": 1 regression, 1 failure"),
        ("outdone", {f"{SMALL} {LABEL}": "it is farther"}, ": 1 outdone engine, 1 failure"),
    ],
)
def test_a_night_of_the_command_line(
    kind: str, found: object, title_end: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    copy_open(SMALL, tmp_path / "manifests")
    monkeypatch.setattr(regressions, kind, lambda before, after: found)
    options = ["--manifests", str(tmp_path / "manifests"), "nightly", "--gpu", "cpu"]
    options += ["--precision", "fp32", "--store", str(tmp_path / "store")]
    status = run_cli(main.farm_parser(), [*options, "--site", str(tmp_path / "site")])
    assert status == 19
    assert_golden(f"run/night-{kind}", "\n".join(capsys.readouterr().err.splitlines()[-2:]))
    issue = (tmp_path / "_nightly" / "issue.md").read_text()
    title, blank, *rest = issue.splitlines()
    assert title.endswith(title_end)
    assert blank == ""
    assert any("manifests.lock" in line for line in rest)
    run = nights.last_night(Repository(open_store(str(tmp_path / "store"))))
    assert run == read_nightly(tmp_path / "_nightly" / "run.json")


def test_a_night_that_dies_leaves_no_issue_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(options: object, **told: object) -> None:
        raise JobError("no store")

    monkeypatch.setattr(cli_nightly, "plan_of", dies)
    issue = tmp_path / "issue.md"
    issue.write_text("of yesterday\n")
    options = ["nightly", "--store", str(tmp_path / "store"), "--issue", str(issue)]
    assert run_cli(main.farm_parser(), options) == JobError.exit_code
    assert not issue.exists()


def test_a_failure_is_told_whole_and_with_the_options_that_show_it_again(night: Night) -> None:
    text = f"{SMALL}: preprocess.crop: wrong\n{SMALL}: preprocess.mean: wrong"
    summary = Summary(failed={SMALL: JobError(text), f"{SMALL} {LABEL}": JobError("no memory")})
    summary.disabled = {f"{SMALL} sm86-rtx1.7-int8": "missed\nby far"}
    summary.causes = {f"{SMALL} sm86-rtx1.7-int8": Cause.ENGINE_MISSED}
    words = [
        "nightly", "--weights", "seeded", "--calibration", "my photos", "--store", "s",
        "--gpu", "cpu,sm86", "--precision", "fp32,int8", "--night", "7", "--models", "a*",
    ]  # fmt: skip
    options = main.farm_parser().parse_args(["--manifests", "m", *words])
    options.locked = True
    again = cli_nightly.again_of(options, "_repository-seeded")
    run = regressions.tell(
        make_plan("s", [], 0), summary, (), started="2026-01-02T00:00:00Z", finished="",
        commit=None, again=again,
    )  # fmt: skip
    assert [job.reason for job in run.failed] == [text, "no memory", "missed\nby far"]
    farm, *others = (shlex.split(job.command) for job in run.failed)
    for command in (farm, *others):
        asked = main.farm_parser().parse_args(command[1:])
        assert (asked.manifests, asked.weights, asked.calibration) == ("m", "seeded", "my photos")
        assert (asked.store, asked.models, asked.locked) == ("s", SMALL, True)
    assert_golden("run/issue-again", (regressions.issue(run) or ("", ""))[1])


def test_what_is_the_default_is_not_in_the_command_that_shows_a_failure_again() -> None:
    options = main.farm_parser().parse_args(["nightly", "--store", "_repository"])
    again = cli_nightly.again_of(options, "_repository")
    assert again.command(EngineName(SMALL)) == f"zoo-farm zoo --models {SMALL}"
