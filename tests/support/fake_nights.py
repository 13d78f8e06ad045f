"""Nights of a farm in memory: its engines are as good, and as quick, as a test says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from rich.console import Console

from builders import weights
from builders.executors import Outcome
from builders.history.failures import Failures
from builders.jobs.messages import BuildJob, Job, Verification
from builders.jobs.progress import Display, Report
from builders.photos.calibration import CalibrationSet
from builders.planning.request import Request
from builders.publish import index as listing
from builders.publish.candidates import Proposals
from builders.recipe import export_form
from builders.recipe.export_form import Form
from builders.run.farm import Farm
from builders.run.summary import Summary
from builders.toolchains.elsewhere import Places
from builders.weights.mode import WeightsMode
from support import records
from support.models import SMALL
from support.paths import MANIFESTS
from zoo.repository.repository import Repository
from zoo.schema.floors import OwnTolerance
from zoo.schema.index import Candidate, EngineEntry, Index, ModelIndex, index_row
from zoo.schema.manifest import Manifest
from zoo.schema.targets import Arch, Precision, Toolchain
from zoo.stores import MemoryStore
from zoo.util.errors import JobError, NotRunError

CPU = Arch("cpu")
LABEL = "cpu-ort1.32-fp32"
NO_IMAGES = CalibrationSet(source="shipped", paths=(), digests=())


def places(toolchains: dict[Arch, Toolchain]) -> Places:
    """Everything runs where it is built."""
    return Places(
        lines=(toolchains,), elsewhere=frozenset(), here=frozenset(),
        verifies_on=lambda archs, toolchain: archs[0],
    )  # fmt: skip


class Desk(Proposals):
    """Puts what is proposed into the index at once, unsigned."""

    def __init__(self, repository: Repository) -> None:
        super().__init__(repository, None)
        self.repository = repository
        self.day = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def send(self, candidate: Candidate) -> ModelIndex | None:
        model = candidate.card.model
        before, listed = self.repository.model_index(model), self.repository.index()
        made = listing.model_index(self.repository, candidate, before, self.day)
        self.repository.store.put(f"index/{model}.json", made.to_json())
        others = [row for row in (listed.models if listed else ()) if row.model != model]
        rows = (*others, index_row(made, made.to_json()))
        self.repository.store.put("index.json", Index(kind="dry-run", models=rows).to_json())
        return None if made == before else made


class PromptDesk(Desk):
    """Puts what is proposed again into the index at once, too."""

    def send_again(self, model: str) -> None:
        index = self.repository.model_index(model)
        assert index is not None
        self.send(Candidate(card=index.card))


class Builder:
    """An executor whose engines are as good, and as quick, as a test says."""

    slots = 1
    exports_at_once = 1
    models_at_once = 1

    def __init__(self) -> None:
        self.good = True
        self.dies = False
        self.absent = False
        self.same = ""  # the bytes of all engines, if they are not to differ
        self.cosine, self.ms, self.noise = 0.99999, 1.0, 0.01
        self.jobs = 0

    def runs_on(self, archs: Sequence[Arch], toolchain: Toolchain) -> Arch:
        return archs[0]

    def stop(self) -> None:
        """Nothing runs."""

    def working(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, job: Job, folder: Path, report: Report) -> Outcome:
        assert isinstance(job, BuildJob)
        assert job.verification is not None
        self.jobs += 1
        (folder / "job.json").write_text(job.model_dump_json())
        if self.absent:
            raise NotRunError("no worker can do it")
        if self.dies:
            raise JobError("the worker died of SIGSEGV")
        (folder / "engine").write_text(self.same or f"{job.inputs.key} {self.jobs}")
        rows = [
            records.verified_batch(n, worst_cosine=self.cosine) for n in job.verification.batches
        ]
        around = (self.ms * (1 - self.noise), self.ms * (1 + self.noise))
        times = [
            records.timed_batch(n, self.ms, interval_ms=around) for n in job.verification.benchmark
        ]
        verdict = Verification(
            passed=self.good, reason=None if self.good else "row 3 is far", batches=tuple(rows)
        )
        result = records.build_output(
            verification=verdict,
            benchmark=tuple(times),
            machine=records.machine(),
            cost={"seconds": 1.0},
        )
        return Outcome(result=result, folder=folder)


class Night:
    """A repository, and nights in it."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self.repository = Repository(MemoryStore())
        self.builder, self.desk = Builder(), PromptDesk(self.repository)
        self._add_export(manifest)
        self.request = Request(
            manifests={manifest.id: manifest}, manifest_dir=MANIFESTS, places=places({}),
            precisions=(Precision.FP32,),
            weights=WeightsMode.SEEDED, calibration=NO_IMAGES, failures=folder / "_failures",
        )  # fmt: skip

    def add(self, name: str) -> None:
        """Adds a model of the same weights, whose engines have the same bytes."""
        self.builder.same = "the same bytes"
        manifest = self.request.manifests[SMALL].model_copy(update={"id": name})
        self._add_export(manifest)
        self.request = replace(self.request, manifests={**self.request.manifests, name: manifest})

    def _add_export(self, manifest: Manifest) -> None:
        identity = weights.identify(manifest, WeightsMode.SEEDED)
        form = Form(dialect="dynamo-20", precision=Precision.FP32)
        asked = export_form.export_inputs(manifest, identity, form, NO_IMAGES.name)
        store = self.repository.store
        self.repository.add_export(
            records.export_record(
                inputs=asked,
                onnx=records.put_blob(store, b"onnx"),
                golden=records.put_blob(store, b"golden"),
            )
        )

    def run(
        self, version: str, *, counts: bool = True, retry: bool = False, only: str = ""
    ) -> Summary:
        """Runs a night with a version of the runtime, of all models or of one."""
        self.desk.day += timedelta(days=1)
        night = self.desk.day.strftime(listing.TIME) if counts else None
        failures = Failures(
            self.repository, night=night, now=lambda: self.desk.day.strftime(listing.TIME)
        )
        display = Display(Console(quiet=True))
        chain = records.toolchain("ort", version)
        farm = Farm(self.repository, self.builder, display, self.desk, failures)
        manifests = self.request.manifests
        request = replace(
            self.request, places=places({CPU: chain}), retry=retry,
            manifests={only: manifests[only]} if only else manifests,
        )  # fmt: skip
        return farm.run(request)

    def loosen(self, precision: Precision) -> None:
        """Lets the model's engines of a precision be farther from PyTorch."""
        own = OwnTolerance(cosine=0.5, reason="a test says so")
        manifest = self.request.manifests[SMALL].model_copy(update={"tolerance": {precision: own}})
        self.request = replace(self.request, manifests={SMALL: manifest})

    @property
    def index(self) -> ModelIndex:
        index = self.repository.model_index(SMALL)
        assert index is not None
        return index

    @property
    def entry(self) -> EngineEntry:
        (entry,) = self.index.current
        return entry
