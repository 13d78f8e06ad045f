"""An engine that misses the floors which its ONNX keeps: a stricter network is tried, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_nights import CPU, Builder, Night, places
from support.goldens import assert_golden
from support.models import SMALL
from support.records import blob, toolchain

from builders.executors import Outcome
from builders.history.failures import Failures
from builders.jobs.messages import (
    BuildJob,
    BuildOutput,
    DisabledExport,
    ExportedFile,
    ExportJob,
    ExportOutput,
    Job,
    VerifyJob,
)
from builders.jobs.progress import Report
from builders.planning.plan import plan_farm
from builders.planning.report import PlannedEngine
from builders.recipe import export_form
from builders.recipe.export_form import Form
from builders.recipe.precisions import SAFETIES
from zoo.schema.keys import BuildInputs
from zoo.schema.manifest import Manifest
from zoo.schema.old_failures import OldMiss, missed_key
from zoo.schema.precisions import Precision
from zoo.schema.records import Advice, FailureReason, FailureRecord, FailureStage
from zoo.util.digest import sha256_bytes
from zoo.util.errors import JobError

FIRST, SECOND, THIRD = SAFETIES
VERSION = "1.32.0"


class Lowering(Builder):
    """Makes networks of words, and engines that keep their floors where a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.passing = {SECOND}
        self.alike = False
        self.impossible: set[float] = set()
        self.far_off: set[float] = set()  # on golden photos, already in the export
        self.fatal: set[float] = set()
        self.built: list[float] = []
        self._safety: dict[str, float] = {}

    def run(self, job: Job, folder: Path, report: Report) -> Outcome:
        if isinstance(job, ExportJob):
            return Outcome(result=self._export(job, folder), folder=folder)
        if isinstance(job, VerifyJob):
            self.good = self._safety[job.record.inputs.onnx] in self.passing
            return Outcome(result=self._prove(job, folder, report), folder=folder)
        assert isinstance(job, BuildJob)
        if job.inputs.precision == "fp32":
            self.good = True
            return super().run(job, folder, report)
        safety = self._safety[job.onnx.sha256]
        self.built.append(safety)
        self.good = safety in self.passing
        return super().run(job, folder, report)

    def _prove(self, job: VerifyJob, folder: Path, report: Report) -> BuildOutput:
        onnx = blob(sha256=job.record.inputs.onnx, size=1)
        build = BuildJob(
            inputs=job.record.inputs,
            onnx=onnx,
            parameters=1,
            verification=job.verification,
            store=job.store,
        )
        result = super().run(build, folder, report).result
        assert isinstance(result, BuildOutput)
        return result.model_copy(update={"engine": None})

    def _export(self, job: ExportJob, folder: Path) -> ExportOutput:
        exports, disabled = [], []
        for name, asked in job.inputs.items():
            assert asked.lowering is not None
            safety = asked.lowering.safety
            if safety in self.fatal:
                raise JobError("the worker died of SIGKILL")
            if safety in self.impossible | self.far_off:
                far = safety in self.far_off
                reason = "its ONNX is far off" if far else "too much would stay fp32"
                disabled.append(
                    DisabledExport(
                        inputs=asked, reason=reason, calibration={}, advice=Advice(),
                        stricter_may_pass=far,
                    )
                )  # fmt: skip
                continue
            data = b"alike" if self.alike else f"int8 {safety}".encode()
            self._safety.setdefault(sha256_bytes(data), safety)
            (folder / f"{name}.onnx").write_bytes(data)
            exports.append(
                ExportedFile(
                    inputs=asked, onnx=f"{name}.onnx", parameters=1, largest_tensor=1, check={},
                    advice=Advice(kept=("a",) if safety == SECOND else ()),
                )
            )  # fmt: skip
        return ExportOutput(
            golden=None, state=None, exports=tuple(exports), disabled=tuple(disabled), cost={}
        )


class Farm(Night):
    """Nights of int8 on the CPU."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        super().__init__(manifest, folder)
        self.builder: Lowering = Lowering()
        self.request = replace(self.request, precisions=("int8",))

    def planned(self) -> PlannedEngine:
        request = replace(self.request, places=places({CPU: toolchain("ort", VERSION)}))
        (engine,) = plan_farm(self.repository, request).engines
        return engine


@pytest.fixture
def farm(manifests: dict[str, Manifest], tmp_path: Path) -> Farm:
    return Farm(manifests[SMALL], tmp_path)


def test_forms_become_stricter_below_fp32() -> None:
    form = Form(dialect="dynamo-20", precision="fp16")
    second, third = form.stricter
    assert (second, third) == (replace(form, safety=SECOND), replace(form, safety=THIRD))
    assert (second.stricter, third.stricter) == ((third,), ())
    assert (second.name, third.name) == ("fp16-safety-0.25", "fp16-safety-0")
    assert replace(form, precision="fp32").stricter == ()


def test_a_stricter_network_is_built_in_the_same_run(farm: Farm) -> None:
    done = farm.run(VERSION)
    assert not done.failed
    assert done.published == [f"{SMALL} cpu-ort1.32-int8-mixed"]
    assert farm.builder.built == [FIRST, SECOND]
    assert farm.entry.status == "verified"
    assert farm.planned().action == "nothing"

    again = farm.run(VERSION)
    assert again.current == done.published
    assert farm.builder.built == [FIRST, SECOND]


def test_a_new_runtime_has_the_first_network_tried_again(farm: Farm) -> None:
    farm.run(VERSION)
    farm.builder.passing = {FIRST, SECOND}
    assert farm.run("1.32.1").published == [f"{SMALL} cpu-ort1.32-int8"]
    assert farm.builder.built == [FIRST, SECOND, FIRST]


@pytest.mark.parametrize("counts", [True, False])
def test_where_the_strictest_one_misses_too_the_cell_is_disabled(farm: Farm, counts: bool) -> None:
    farm.builder.passing = set()
    (error,) = farm.run(VERSION, counts=counts).failed.values()
    (cell,) = farm.index.disabled
    assert "row 3 is far" in str(error)
    assert "RETRY=1" in (error.hint or "")
    assert_golden("run/missed", cell.reason)
    assert farm.planned().action == "disabled"
    assert list(farm.run(VERSION, counts=counts).disabled.values()) == [cell.reason]
    assert farm.index.disabled == (cell,)
    assert farm.builder.built == [FIRST, SECOND, THIRD]


def test_what_missed_as_old_repositories_say_is_not_built_again(farm: Farm) -> None:
    farm.builder.passing = set()
    farm.run(VERSION)
    store = farm.repository.store
    for entry in list(store.list("failures/")):
        record = farm.repository.read(entry.key, FailureRecord)
        store.delete(entry.key)
        assert record is not None
        assert isinstance(record.inputs, BuildInputs)
        assert record.tolerance is not None
        old = OldMiss(inputs=record.inputs, tolerance=record.tolerance, reason=record.text)
        store.put(missed_key(record.inputs, record.tolerance), old.to_json())
    assert farm.planned().action == "disabled"
    (reason,) = farm.run(VERSION).disabled.values()
    assert_golden("run/missed", reason)
    assert farm.builder.built == [FIRST, SECOND, THIRD]
    assert farm.run(VERSION, retry=True).failed
    assert farm.builder.built == [FIRST, SECOND, THIRD, THIRD]


def test_what_can_not_be_had_is_passed_over(farm: Farm) -> None:
    farm.builder.passing, farm.builder.impossible = {THIRD}, {SECOND}
    assert farm.run(VERSION).published
    assert farm.builder.built == [FIRST, THIRD]
    assert farm.planned().action == "nothing"


@pytest.mark.parametrize("far_off", [{FIRST}, {FIRST, SECOND}])
def test_where_an_onnx_is_far_off_a_stricter_one_is_made(farm: Farm, far_off: set[float]) -> None:
    farm.builder.passing, farm.builder.far_off = {SECOND, THIRD}, far_off
    assert farm.run(VERSION).published
    assert farm.builder.built == [THIRD if SECOND in far_off else SECOND]
    assert farm.planned().action == "nothing"


def test_where_every_onnx_is_far_off_there_is_no_such_engine(farm: Farm) -> None:
    farm.builder.far_off = {FIRST, SECOND, THIRD}
    assert list(farm.run(VERSION).disabled.values()) == ["its ONNX is far off"]
    assert farm.builder.built == []
    assert farm.planned().action == "disabled"
    farm.request = replace(farm.request, retry=True)
    assert_golden("planning/export-not-retried", farm.planned().reason)
    assert list(farm.run(VERSION, retry=True).disabled.values()) == [farm.planned().reason]
    (cell,) = farm.index.disabled
    assert cell.reason == "its ONNX is far off"


def test_where_none_can_be_had_no_stricter_one_is_made(farm: Farm) -> None:
    farm.builder.impossible, farm.builder.fatal = {FIRST}, {SECOND}
    done = farm.run(VERSION)
    assert not done.failed
    assert list(done.disabled.values()) == ["too much would stay fp32"]


def test_a_retry_tries_the_strictest_one_alone(farm: Farm) -> None:
    farm.builder.passing = set()
    farm.run(VERSION)
    assert farm.run(VERSION, retry=True).failed
    assert farm.builder.built == [FIRST, SECOND, THIRD, THIRD]
    farm.builder.passing = {THIRD}
    assert farm.run(VERSION, retry=True).published
    assert farm.index.disabled == ()


@pytest.mark.parametrize("alike", [True, False])
def test_where_there_is_no_stricter_one_the_cell_is_disabled(farm: Farm, alike: bool) -> None:
    farm.builder.passing, farm.builder.alike = set(), alike
    farm.builder.impossible = set() if alike else {SECOND, THIRD}
    (error,) = farm.run(VERSION).failed.values()
    assert ("too much would stay fp32" in str(error)) is not alike
    assert farm.builder.built == [FIRST]
    (cell,) = farm.index.disabled
    assert cell.stage == "build"  # for the engine's sake: the first network met its tolerance
    assert_golden(f"run/no-stricter-network-{'alike' if alike else 'impossible'}", cell.reason)
    assert farm.planned().action == "disabled"
    assert farm.run(VERSION).disabled
    assert farm.builder.built == [FIRST]


def test_a_plan_says_that_a_stricter_network_is_to_be_made(farm: Farm) -> None:
    farm.builder.passing = set()
    farm.run(VERSION)
    for entry in list(farm.repository.store.list("exports/")):
        export = farm.repository.export(SMALL, entry.key.split("/")[-1].removesuffix(".json"))
        assert export is not None
        if export.inputs.lowering and export.inputs.lowering.safety == SECOND:
            farm.repository.store.delete(entry.key)
    planned = farm.planned()
    assert (planned.action, planned.reason) == ("export", "an engine missed its tolerance")


def test_what_a_later_proof_withdraws_has_a_stricter_successor(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.builder.passing = {FIRST, SECOND}
    assert farm.run(VERSION).published == [f"{SMALL} cpu-ort1.32-int8"]
    farm.builder.passing = {SECOND}
    monkeypatch.setattr(export_form, "VERIFICATION_METHOD", "one that sees more")
    assert farm.run(VERSION).published == [f"{SMALL} cpu-ort1.32-int8-mixed"]
    assert farm.builder.built == [FIRST, SECOND]
    assert farm.planned().action == "nothing"


def test_what_a_later_proof_withdraws_disables_no_cell(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.builder.passing, farm.builder.impossible = {FIRST}, {SECOND, THIRD}
    farm.run(VERSION)
    farm.builder.passing = set()
    monkeypatch.setattr(export_form, "VERIFICATION_METHOD", "one that sees more")
    (error,) = farm.run(VERSION).failed.values()
    assert "row 3 is far" in str(error)
    assert "RETRY=1" not in str(error)
    assert farm.entry.status == "withdrawn"
    assert farm.index.disabled == ()
    assert farm.index.disabled == ()


def test_a_stricter_network_that_cannot_be_made_fails_its_cell_alone(farm: Farm) -> None:
    farm.request = replace(farm.request, precisions=("fp32", "int8"))
    farm.builder.fatal = {SECOND}
    for _ in range(2):
        done = farm.run(VERSION)
        assert list(done.failed) == [f"{SMALL} cpu-ort1.32-int8"]
        assert "SIGKILL" in str(done.failed[f"{SMALL} cpu-ort1.32-int8"])
        assert farm.entry.precision == "fp32"
        assert farm.entry.status == "verified"


def test_other_floors_have_the_first_network_tried_again(farm: Farm) -> None:
    farm.builder.passing = set()
    farm.run(VERSION)
    assert farm.run(VERSION).disabled
    farm.builder.passing = {FIRST}
    farm.loosen(Precision.INT8)
    assert farm.run(VERSION).published == [f"{SMALL} cpu-ort1.32-int8"]
    assert farm.planned().action == "nothing"


def test_what_missed_as_one_of_several_gpus_engine_has_missed_for_each(farm: Farm) -> None:
    farm.run(VERSION)
    (record,) = farm.repository.records(SMALL)
    wide = record.inputs.model_copy(update={"archs": ("sm80", "sm86")})
    known, floors = Failures(farm.repository), farm.request.manifests[SMALL].kept_by("int8")
    known.add(
        wide, floors, "row 3 is far", stage=FailureStage.BUILD, reason=FailureReason.TOLERANCE
    )
    for failures in (known, Failures(farm.repository)):
        assert failures.missed(wide, floors)
        assert failures.missed(wide.model_copy(update={"archs": ("sm86",)}), floors)
        assert not failures.missed(wide.model_copy(update={"archs": ("sm89",)}), floors)
        assert not failures.missed(wide, farm.request.manifests[SMALL].kept_by("fp16"))
