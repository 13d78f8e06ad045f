"""A repository and what happens to it, with a builder that computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from builders.executors import Outcome
from builders.history.failures import Failures
from builders.jobs.messages import (
    BuildJob,
    DisabledExport,
    ExportedFile,
    ExportJob,
    ExportOutput,
    Job,
    Verification,
    VerifyJob,
)
from builders.jobs.progress import Display, Report
from builders.photos.calibration import CalibrationSet
from builders.planning.plan import plan_farm
from builders.planning.report import PlannedEngine
from builders.planning.request import Request
from builders.publish import index as listing
from builders.run.farm import Farm
from builders.run.summary import Summary
from builders.toolchains.elsewhere import Places
from builders.weights.mode import WeightsMode
from support.fake_nights import Desk
from support.models import SMALL
from support.paths import MANIFESTS
from support.records import (
    attestation,
    build_output,
    decided_batch,
    toolchain,
)
from zoo.repository.repository import Repository
from zoo.schema.floors import OwnTolerance
from zoo.schema.index import EngineEntry, Index, ModelIndex, index_row
from zoo.schema.manifest import Manifest
from zoo.schema.measurements import BatchNumbers
from zoo.schema.precisions import Precision
from zoo.schema.records import (
    Advice,
)
from zoo.schema.targets import Arch, Toolchain, cell_of
from zoo.stores import MemoryStore
from zoo.util.digest import sha256_json
from zoo.util.errors import JobError, NotRunError, QuarantineError

GPUS = ("sm80", "sm86", "sm89")


def errors(error: float) -> dict[str, Any]:
    """Returns the numbers of an engine that is as far from PyTorch on each of twelve photos."""
    each = {"cosine": 1.0, "relative_error": error, "distance_error": error}
    return {
        "worst_relative_error": error, "worst_distance_error": error,
        "photos": {str(photo): each for photo in range(12)},
    }  # fmt: skip


class World:
    """A builder whose engines are as good as a history says; nothing is computed."""

    slots = 1
    exports_at_once = 1
    models_at_once = 1

    def __init__(self) -> None:
        self.jobs: list[tuple[str, str]] = []  # kind, and label of the engine's architectures
        self.passes, self.dies, self.absent, self.exportable = True, False, False, True
        self.kills = False  # several workers of a cluster
        self.ranges = False  # whether the photos change the ONNX
        self.cosine, self.error = 0.99999, 0.005
        self.here: tuple[str, ...] = ("cpu",)

    def runs_on(self, archs: Sequence[Arch], toolchain: Toolchain) -> Arch | None:
        return next((arch for arch in archs if arch.name in self.here), None)

    def stop(self) -> None:
        """Nothing runs."""

    def working(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, job: Job, folder: Path, report: Report) -> Outcome:
        if isinstance(job, ExportJob):
            self.jobs.append(("export", ""))
            return Outcome(result=self._export(job, folder), folder=folder)
        assert isinstance(job, BuildJob | VerifyJob)
        made = job.inputs if isinstance(job, BuildJob) else job.record.inputs
        kind = "build" if isinstance(job, BuildJob) else "verify"
        self.jobs.append((kind, f"{'+'.join(made.archs)} {made.precision}"))
        if self.absent:
            raise NotRunError("no worker can do it")
        if self.kills:
            raise QuarantineError("three workers died in the middle of it")
        if self.dies:
            raise JobError("the worker died of SIGSEGV")
        verdict = None
        if job.verification is not None:
            passes = self.passes and self.cosine >= job.verification.tolerance.cosine
            reason = None if passes else "row 3 is far"
            numbers = BatchNumbers.model_validate(
                decided_batch(worst_cosine=self.cosine, **errors(self.error_of(made.precision)))
            )
            verdict = Verification(passed=passes, reason=reason, batches=(numbers,))
        arch = next((arch for arch in made.archs if arch in self.here), "cpu")
        gpu = {} if arch == "cpu" else {"gpu": {"compute_capability": ".".join(arch[2:])}}
        if isinstance(job, BuildJob):
            (folder / "engine").write_text(f"{made.key} {len(self.jobs)}")
        engine = "engine" if isinstance(job, BuildJob) else None
        result = build_output(engine=engine, verification=verdict, machine=gpu)
        return Outcome(result=result, folder=folder)

    def error_of(self, precision: Precision) -> float:
        """How far an engine that is made now is from PyTorch; one in fp32 never is."""
        return 0.0 if precision is Precision.FP32 else self.error

    def _export(self, job: ExportJob, folder: Path) -> ExportOutput:
        exports, disabled = [], []
        for name, asked in job.inputs.items():
            if not self.exportable and asked.precision != "fp32":
                disabled.append(
                    DisabledExport(
                        inputs=asked, reason="too far off", calibration={}, advice=Advice(),
                        stricter_may_pass=False,
                    )
                )  # fmt: skip
                continue
            # Floors are not in the bytes, and photos may not be: an export may come out as it was.
            safety = asked.lowering.safety if asked.lowering else 1
            crop = asked.preprocess.crop
            photos = asked.lowering.calibration[-6:] if asked.lowering and self.ranges else ""
            (folder / f"{name}.onnx").write_text(f"{asked.precision} {safety} {crop} {photos}")
            exports.append(
                ExportedFile(
                    inputs=asked, onnx=f"{name}.onnx", parameters=1, largest_tensor=1, check={},
                    advice=Advice(),
                )
            )  # fmt: skip
        golden = None if job.fp32 is not None else "golden"
        if golden:
            (folder / golden).write_text("golden")
        return ExportOutput(
            golden=golden, state=None, exports=tuple(exports), disabled=tuple(disabled), cost={}
        )


@dataclass
class History:
    """A repository, and what happens to it."""

    manifest: Manifest
    folder: Path

    def __post_init__(self) -> None:
        self.repository = Repository(MemoryStore())
        self.world, self.desk = World(), Desk(self.repository)
        self.gpus: tuple[str, ...] = ("cpu",)
        self.version, self.photos, self.builder = 0, 0, dict[str, str]()
        self.retry, self.counts = False, True

    def request(self) -> Request:
        cpu = toolchain("ort", f"1.32.{self.version}")
        gpu = toolchain("rtx", f"1.7.{self.version}.1", cuda=13)
        line = {Arch(name): cpu if name == "cpu" else gpu for name in self.gpus}
        photos = CalibrationSet(source="folder", paths=(), digests=(f"{self.photos:064}",))
        return Request(
            manifests={SMALL: self.manifest}, manifest_dir=MANIFESTS,
            places=Places(
                lines=(line,), elsewhere=frozenset(), here=frozenset(),
                verifies_on=self.world.runs_on,
            ),
            precisions=(
                (Precision.FP32, Precision.INT8) if self.gpus == ("cpu",) else (Precision.FP16,)
            ),
            weights=WeightsMode.SEEDED, calibration=photos,
            failures=self.folder / "_failures", builder=self.builder,
            retry=self.retry,
        )  # fmt: skip

    def plan(self) -> tuple[PlannedEngine, ...]:
        return plan_farm(self.repository, self.request()).engines

    def run(self) -> Summary:
        self.desk.day += timedelta(hours=1)
        night = self.desk.day.strftime(listing.TIME)
        failures = Failures(
            self.repository, night=night if self.counts else None, now=lambda: night
        )
        self.world.jobs = []
        display = Display(Console(quiet=True))
        return Farm(self.repository, self.world, display, self.desk, failures).run(self.request())

    # What may happen

    def days(self, number: int) -> None:
        """Time passes: superseded engines leave the index."""
        self.desk.day += timedelta(days=number)
        index = self.repository.model_index(SMALL)
        if index is not None:
            aged = listing.without_aged(index, self.desk.day)
            assert usable(aged).keys() == usable(index).keys()  # nothing proven goes with age
            self._put(aged)

    def take_back(self) -> None:
        """A maintainer withdraws an engine."""
        self._attest("withdrawn", {"reason": "a maintainer said so", "by": "somebody"})

    def lose_index(self) -> None:
        """What was built is not signed: no index lists it."""
        self.repository.store.delete(f"index/{SMALL}.json")
        self.repository.store.delete("index.json")

    def floors(self, cosine: float) -> None:
        """The manifest's tolerance changes."""
        own = OwnTolerance(cosine=cosine, reason="a test says so")
        tolerance = dict.fromkeys((Precision.FP32, Precision.FP16, Precision.INT8), own)
        self.manifest = self.manifest.model_copy(update={"tolerance": tolerance})

    def crop(self, crop: float) -> None:
        """The preprocessing changes."""
        preprocess = self.manifest.preprocess.model_copy(update={"crop": crop})
        self.manifest = self.manifest.model_copy(update={"preprocess": preprocess})

    def batches(self, most: int) -> None:
        """The batch ranges change."""
        batch = self.manifest.batch
        gpu = (*batch.gpu[:-1], batch.gpu[-1].model_copy(update={"max": most, "opt": most}))
        cpu = batch.cpu.model_copy(update={"max": most, "opt": most})
        changed = batch.model_copy(update={"gpu": gpu, "cpu": cpu})
        self.manifest = self.manifest.model_copy(update={"batch": changed})

    def _attest(self, kind: Any, body: dict[str, Any]) -> None:
        index = self.repository.model_index(SMALL)
        if index is None or not index.current:
            return
        engine = index.current[0].engine.sha256
        self.desk.day += timedelta(minutes=1)
        self.repository.attest(
            attestation(
                kind,
                engine=engine,
                time=self.desk.day.strftime(listing.TIME),
                key=sha256_json({"engine": engine, **body}),
                body=body,
            )
        )
        self.desk.send_again(SMALL)

    def _put(self, index: ModelIndex) -> None:
        self.repository.store.put(f"index/{SMALL}.json", index.to_json())
        rows = Index(kind="dry-run", models=(index_row(index, index.to_json()),))
        self.repository.store.put("index.json", rows.to_json())


def usable(index: ModelIndex | None) -> dict[str, list[EngineEntry]]:
    """Returns the verified engines that clients get, by target."""
    found: dict[str, list[EngineEntry]] = {}
    for entry in index.engines if index else ():
        for label in entry.targets if entry.status == "verified" else ():
            found.setdefault(cell_of(label), []).append(entry)
    return found
