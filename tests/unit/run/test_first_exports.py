"""Exports that run at once: before any engine, each for itself, published in the usual order."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_nights import Builder, Night
from support.models import SMALL

from builders.executors import Outcome
from builders.jobs.messages import ExportedFile, ExportJob, ExportOutput, Job
from builders.jobs.progress import Report
from builders.run import first_exports
from builders.run.summary import Summary
from zoo.schema.index import Candidate, ModelIndex
from zoo.schema.manifest import Manifest
from zoo.util.errors import ClusterError, JobError

VERSION = "1.32.0"


class Exporter(Builder):
    """Makes exports, too; notes what runs beside what."""

    def __init__(self, at_once: int) -> None:
        super().__init__()
        self.exports_at_once = at_once
        self.bad: set[str] = set()
        self.lost = False
        self.said: list[str] = []  # "export" and "build", as they begin
        self.most = 0
        self.stopped = False
        self._running: list[str] = []
        self._turn = threading.Lock()
        self._meets = threading.Barrier(at_once)

    def stop(self) -> None:
        self.stopped = True
        self._meets.abort()  # as stopping a worker ends its job

    def run(self, job: Job, folder: Path, report: Report) -> Outcome:
        kind = "export" if isinstance(job, ExportJob) else "build"
        with self._turn:
            assert kind == "export" or not self._running, "an engine is measured beside a job"
            self._running.append(kind)
            self.said.append(kind)
            self.most = max(self.most, len(self._running))
        try:
            if isinstance(job, ExportJob):
                return Outcome(result=self._export(job, folder), folder=folder)
            return super().run(job, folder, report)
        finally:
            with self._turn:
                self._running.remove(kind)

    def _export(self, job: ExportJob, folder: Path) -> ExportOutput:
        self._meets.wait(60)  # ends in an error unless as many as may run at once do
        if self.lost:
            raise ClusterError("no job can run any more")
        if job.manifest.id in self.bad:
            raise JobError("the worker died of SIGSEGV")
        (folder / "fp32.onnx").write_text(f"onnx of {job.manifest.id}")
        (folder / "golden").write_text("golden")
        (asked,) = job.inputs.values()
        made = ExportedFile(
            inputs=asked, onnx="fp32.onnx", parameters=1, largest_tensor=1, check={}
        )
        return ExportOutput(golden="golden", state=None, exports=(made,), cost={})


class Bare(Night):
    """A night of models that have no export yet."""

    def __init__(self, manifest: Manifest, folder: Path, exporter: Exporter, models: int) -> None:
        super().__init__(manifest, folder)
        self.builder = self.exporter = exporter
        self.sent: list[str] = []
        send = self.desk.send

        def noted(candidate: Candidate) -> ModelIndex | None:
            self.sent.append(candidate.card.model)
            return send(candidate)

        self.desk.send = noted  # type: ignore[method-assign]
        for number in range(1, models):
            self.add(f"model{number}")
        self.builder.same = ""

    def _add_export(self, manifest: Manifest) -> None:
        """None."""


@pytest.fixture
def bare(manifests: dict[str, Manifest], tmp_path: Path) -> Bare:
    """Four models, two exports at once."""
    return Bare(manifests[SMALL], tmp_path, Exporter(2), 4)


def published(summary: Summary) -> int:
    return len(summary.published)


def test_exports_run_at_once_and_nothing_beside_an_engine(bare: Bare) -> None:
    summary = bare.run(VERSION)
    assert not summary.failed
    assert published(summary) == 4
    assert bare.exporter.most == 2
    assert bare.exporter.said == ["export"] * 4 + ["build"] * 4


def test_what_is_published_and_exported_has_the_order_of_the_manifests(bare: Bare) -> None:
    summary = bare.run(VERSION)
    models = [SMALL, "model1", "model2", "model3"]
    assert summary.exported == models
    assert [label.split()[0] for label in summary.published] == models
    assert bare.sent == models


def test_one_at_a_time_exports_each_model_before_its_engine(
    manifests: dict[str, Manifest], tmp_path: Path
) -> None:
    bare = Bare(manifests[SMALL], tmp_path, Exporter(1), 2)
    assert published(bare.run(VERSION)) == 2
    assert bare.exporter.said == ["export", "build", "export", "build"]


def test_a_failed_export_fails_its_model_alone_and_is_not_tried_twice(bare: Bare) -> None:
    bare.exporter.bad = {"model1"}
    summary = bare.run(VERSION)
    assert list(summary.failed) == ["model1"]
    assert summary.failed["model1"].exit_code == JobError.exit_code
    assert published(summary) == 3
    assert bare.exporter.said.count("export") == 4
    assert "model1" not in summary.exported


def test_engines_of_a_group_do_not_wait_for_the_next_groups_exports(
    bare: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_exports, "_GROUP", 1)
    assert published(bare.run(VERSION)) == 4
    assert bare.exporter.said == ["export", "export", "build", "build"] * 2


def test_when_no_job_can_run_any_more_the_run_ends(bare: Bare) -> None:
    bare.exporter.lost = True
    with pytest.raises(ClusterError):
        bare.run(VERSION)
    assert bare.exporter.stopped
    assert "build" not in bare.exporter.said


def test_what_is_up_to_date_starts_no_job(bare: Bare) -> None:
    bare.run(VERSION)
    done = len(bare.exporter.said)
    again = bare.run(VERSION)
    assert len(again.current) == 4
    assert len(bare.exporter.said) == done


def test_a_model_that_is_added_is_all_that_runs(bare: Bare) -> None:
    bare.run(VERSION)
    bare.exporter.said.clear()
    bare.exporter._meets = threading.Barrier(1)
    added = bare.request.manifests[SMALL].model_copy(update={"id": "another"})
    bare.request = replace(bare.request, manifests={**bare.request.manifests, added.id: added})
    summary = bare.run(VERSION)
    assert bare.exporter.said == ["export", "build"]
    assert [label.split()[0] for label in summary.published] == ["another"]
