"""Random events in the life of a repository, and what must hold after each run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from builders.jobs import scratch
from builders.planning import decision as deciding
from builders.planning.decision import Action
from builders.planning.report import PlannedEngine, make_plan
from builders.publish import index as listing
from builders.publish import provenance, records
from builders.publish.tolerances import stated_tolerance
from builders.recipe import export_form
from builders.run import farm, regressions
from builders.run.summary import Summary
from support.histories import GPUS, History, usable
from support.models import SMALL
from zoo.repository.files import RecordFiles
from zoo.schema.floors import OwnTolerance, looser_by
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.manifest import Manifest
from zoo.schema.records import (
    Record,
    Status,
)
from zoo.schema.status import status_of
from zoo.schema.targets import cell_of

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

EVENT = st.one_of([st.tuples(st.just(name), EVENTS[name]) for name in [*EVENTS, "run", "gpus"]])


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
        assert after is not None
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


def follow(manifest: Manifest, folder: Path, events: list[tuple[str, Any]]) -> None:
    """Lets events happen to a new repository, and checks that its runs do what its plans say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "statement", lambda *_: {})
        patch.setattr(RecordFiles, "parse", parse)
        patch.setattr(farm, "manifest_source", lambda *_: None)  # starts git
        patch.setattr(scratch, "keep", lambda folder, kept: None)
        patch.setattr(scratch, "check_quarantine", lambda job, kept: None)
        patch.setattr(scratch, "scratch_folder", lambda repository: emptied(folder))
        history = History(manifest, folder)
        patch.setattr(records, "utc_now", lambda: history.desk.day.strftime(listing.TIME))
        for name, value in events:
            happen(history, name, value, patch)
        check(history)
