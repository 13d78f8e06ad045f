"""Closed sets: a new member makes mypy name the places that decide, and no table lacks a row."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT
from support.records import engine_entry as engine
from support.records import model_index as model

from builders.backends import get_backend
from builders.planning.decision import ACTION_FACTS, Action, Cause, Decision, why
from builders.recipe.export_form import Form
from builders.recipe.precisions import RECIPES, RangeMethod
from builders.weights.mode import MODE_FACTS, WeightsMode, mode_of
from zoo.catalog.commands import commands
from zoo.catalog.engine_page import history
from zoo.catalog.place import Place
from zoo.client.selection import Machine, select
from zoo.schema.closed import Unknown, complete
from zoo.schema.floors import floors, probe_fall
from zoo.schema.index import DisabledCell
from zoo.schema.keys import WeightsIdentity, WeightsKind
from zoo.schema.manifest import CropMode, Cut
from zoo.schema.precisions import (
    PRECISION_FACTS,
    Lowering,
    Placing,
    Precision,
    Rest,
    is_lowered,
    is_quantised,
)
from zoo.schema.records import (
    Attestation,
    AttestationKind,
    FailureReason,
    FailureStage,
    Kind,
    PrecisionStatus,
    Retry,
    Status,
)
from zoo.schema.runtimes import RUNTIME_FACTS, Runtime
from zoo.schema.status import status_of
from zoo.schema.targets import Label, RuntimeLine, Target, Toolchain
from zoo.util.errors import SelectionError, TargetError
from zoo.util.strenum import StrEnum

DECIDES = {
    Lowering: ("zoo/schema/precisions.py", {
        "zoo/schema/precisions.py",
        "builders/recipe/export_form.py", "builders/precision/search.py",
        "builders/backends/inspector.py", "builders/backends/network.py",
        "builders/backends/tensorrt.py",
    }),
    Rest: ("zoo/schema/precisions.py", {"builders/precision/search.py"}),
    Placing: ("zoo/schema/precisions.py", {"builders/precision/qdq.py"}),
    Runtime: ("zoo/schema/runtimes.py", {"zoo/runtime/header.py", "zoo/catalog/commands.py"}),
    Cut: ("zoo/schema/manifest.py", {"zoo/schema/manifest.py", "builders/export/cuts.py"}),
    CropMode: ("zoo/schema/manifest.py", {"zoo/inference/crop.py", "zoo/catalog/preprocessing.py"}),
    AttestationKind: ("zoo/schema/records.py", {"zoo/schema/status.py"}),
    Retry: ("zoo/schema/records.py", {"builders/history/failures.py"}),
    WeightsKind: ("zoo/schema/keys.py", {"zoo/schema/keys.py"}),
    Precision: ("zoo/schema/precisions.py", {"builders/backends/onnxruntime.py"}),
    Status: ("zoo/schema/records.py", {"builders/publish/index.py", "zoo/client/selection.py"}),
    PrecisionStatus: ("zoo/schema/records.py", {"zoo/catalog/facts.py"}),
    FailureReason: ("zoo/schema/records.py", {
        "builders/planning/decide.py", "builders/history/failures.py",
    }),
    Action: ("builders/planning/decision.py", {"builders/run/engines.py"}),
    FailureStage: ("zoo/schema/records.py", {"zoo/schema/index.py"}),
    Kind: ("zoo/schema/records.py", {"zoo/schema/records.py"}),
    WeightsMode: ("builders/weights/mode.py", {"builders/weights/__init__.py"}),
    RangeMethod: ("builders/recipe/precisions.py", {"builders/precision/ranges.py"}),
}  # fmt: skip
"""Set to the file that defines it, and the files where code has to decide about each member."""

CLASSES = {
    "AnyJob": ("builders/jobs/messages.py", "_Message", {
        "builders/jobs/messages.py", "builders/jobs/results.py", "builders/worker/execute.py",
    }),
    "EngineJob": ("builders/jobs/messages.py", "_Message", {
        "builders/executors/docker.py", "builders/executors/dask/resources.py",
        "builders/jobs/messages.py", "builders/worker/execute.py", "builders/jobs/results.py",
    }),
    "AnyWeights": ("zoo/schema/manifest.py", "_Frozen", {
        "builders/cli/models.py", "builders/recipe/export_form.py",
        "builders/weights/__init__.py", "builders/weights/state.py",
    }),
}  # fmt: skip
"""Union of classes to the file that defines it, their base, and the files where code has to decide
about each class."""


def test_a_new_member_is_an_error_wherever_code_has_to_decide(tmp_path: Path) -> None:
    for name in ("zoo", "builders"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for members, (file, _) in DECIDES.items():
        path = tmp_path / file
        old = path.read_text()
        head = re.search(rf"^class {members.__name__}\(StrEnum\):\n", old, re.MULTILINE)
        assert head is not None
        body = re.compile(r"(?:    [A-Z0-9_]+ = .*\n)+").search(old, head.end())
        assert body is not None
        new = f'    BRAND_NEW = "brand-new-{members.__name__.lower()}"\n'
        path.write_text(old[: body.end()] + new + old[body.end() :])
    for name, (file, base, _) in CLASSES.items():
        path = tmp_path / file
        union = re.compile(rf"^{name}: TypeAlias = ", re.MULTILINE)
        assert union.search(path.read_text()) is not None
        new = f"class BrandNew{name}({base}):\n    pass\n\n\n"
        path.write_text(union.sub(rf"{new}\g<0>BrandNew{name} | ", path.read_text()))
    command = [
        sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "--no-pretty",
        "-p", "zoo", "-p", "builders",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    for members, (_, files) in DECIDES.items():
        named = f"[{members.__name__}.BRAND_NEW"
        where = {line.partition(":")[0] for line in errors if named in line}
        assert where == files, (members, done.stdout[-3000:])
    for name, (_, _, files) in CLASSES.items():
        refused = [line for line in errors if '"assert_never" has incompatible type' in line]
        where = {line.partition(":")[0] for line in refused if f"BrandNew{name}" in line}
        assert where == files, (name, done.stdout[-3000:])


@pytest.mark.parametrize(
    "members",
    [Precision, Runtime, Cut, Status, Kind, PrecisionStatus, RangeMethod, WeightsKind, WeightsMode],
)
def test_members_are_strings_everywhere(members: type[StrEnum]) -> None:
    for member in members:
        assert str(member) == f"{member}" == member.value
        assert json.dumps({member: member}) == json.dumps({member.value: member.value})


def test_a_table_without_a_row_does_not_load() -> None:
    with pytest.raises(TypeError, match=r"Precision\b.*\bBF16"):
        complete(Precision, {one: 1 for one in Precision if one is not Precision.BF16})


@pytest.mark.parametrize("precision", Precision)
def test_every_table_knows_every_precision(precision: Precision) -> None:
    facts = PRECISION_FACTS[precision]
    assert facts.bits in (8, 16, 32)
    assert precision not in facts.finer
    assert bool(facts.finer) is is_lowered(precision)
    assert bool(RECIPES[precision].ranges) is is_quantised(precision)
    assert floors()[precision].cosine > 0
    assert 0 <= probe_fall(precision) < 1
    line = RuntimeLine.parse("ort1.32")
    assert Form.for_line(line, precision).name.startswith(precision)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_repository_has_a_mode_of_weights(kind: Kind) -> None:
    facts = MODE_FACTS[mode_of(kind)]
    assert facts.kind is kind
    assert kind.seeded is bool(facts.suffix)


@pytest.mark.parametrize("action", Action)
def test_every_action_has_a_title(action: Action) -> None:
    assert ACTION_FACTS[action].title


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_makes_a_sentence(cause: Cause) -> None:
    decision = Decision(model="a", wanted=None, action=Action.BLOCKED, cause=cause, text="told")
    assert isinstance(why(decision), str)


@pytest.mark.parametrize("runtime", Runtime)
def test_every_table_knows_every_runtime(runtime: Runtime) -> None:
    assert RUNTIME_FACTS[runtime].title
    chain = Toolchain(kind=runtime, version="11.4.0", os="linux", machine="x86_64")
    assert get_backend(runtime).options(chain, {}) is not None


# What a later version wrote


def later(kind: str, **changes: object) -> Toolchain:
    values = {"kind": kind, "version": "2026.1.0", "os": "linux", "machine": "x86_64"}
    return Toolchain.model_validate({**values, **changes})


def test_an_unknown_runtime_is_read_shown_and_never_taken() -> None:
    chain = later("ov")
    assert chain.kind == "ov"
    assert isinstance(chain.kind, Unknown)
    assert chain.line.title == "ov 2026.1"
    assert json.loads(chain.model_dump_json())["kind"] == "ov"
    assert type(chain.model_dump()["kind"]) is str
    odd = engine("cpu-ort1.32-fp32", toolchain=chain.model_dump(), record="5" * 64)
    machine = Machine(archs=("cpu",), toolchains=(later("ort", version="1.32.0"),))
    known = engine("cpu-ort1.32-fp32")
    assert select(model(odd, known), machine) is not odd
    with pytest.raises(SelectionError, match=r"ov 2026\.1\.0"):
        select(model(odd), machine)
    with pytest.raises(TargetError, match="'ov'"):
        get_backend(chain.kind)
    place = Place(url="https://example.org")
    assert all("ov" not in one.text.split() for one in commands(model(odd), odd, place))


def test_an_engine_of_an_unknown_precision_is_listed_and_never_taken() -> None:
    odd = engine("cpu-ort1.32-fp32", precision="fp6")
    machine = Machine(archs=("cpu",), toolchains=(later("ort", version="1.32.0"),))
    with pytest.raises(SelectionError, match="fp6"):
        select(model(odd), machine)
    assert json.loads(odd.to_json())["precision"] == "fp6"


def attested(kind: str) -> Attestation:
    values = {"kind": kind, "engine": "1" * 64, "time": "2026-01-01T00:00:00Z", "key": "2" * 64}
    return Attestation.model_validate({**values, "machine": {}, "body": {"reason": "r"}})


def test_an_attestation_of_an_unknown_kind_changes_no_status() -> None:
    odd = attested("audited")
    assert status_of([attested("verified"), odd])[0] is Status.VERIFIED
    assert status_of([attested("withdrawn"), odd])[0] is Status.WITHDRAWN
    assert status_of([odd])[0] is Status.PENDING
    assert json.loads(odd.to_json())["kind"] == "audited"
    assert "audited" in {one.what for one in history(model(), [engine("cpu-ort1.32-fp32")], [odd])}


def test_weights_of_an_unknown_kind_keep_their_bytes_and_are_not_seeded() -> None:
    values = {"kind": "torrent", "source": "s", "digest": "1" * 64}
    odd = WeightsIdentity.model_validate(values)
    assert isinstance(odd.kind, Unknown)
    assert not odd.seeded
    assert odd.model_dump(mode="json") == values


def test_a_cell_disabled_at_an_unknown_stage_replaces_no_engine() -> None:
    values = {
        "targets": ["cpu-ort1.32-int8"], "precision": "int8", "reason": "r", "record": "1" * 64,
    }  # fmt: skip
    stages = ("export", "build", "verify", "upload")
    cells = [DisabledCell.model_validate({**values, "stage": stage}) for stage in stages]
    assert [cell.replaces_engines for cell in cells] == [True, False, False, False]
    assert [cell.model_dump(mode="json")["stage"] for cell in cells] == list(stages)


@pytest.mark.parametrize(
    "text", ["sm86-trt11.4-fp16", "sm86-trt11.4-fp16-mixed", "sm200-ov3.1-fp6"]
)
def test_a_label_of_any_version_is_read(text: str) -> None:
    label = Label.read(text)
    assert text.startswith(label.cell)
    assert label.cell.startswith(label.place)
    assert label.place.startswith(label.arch)
    if text.startswith("sm86"):
        target = Target.parse(text)
        assert (str(target.arch), str(target.line)) == (label.arch, label.line)
