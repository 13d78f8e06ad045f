"""Keys cover everything that changes the output, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import records
from support.wants_everything import everywhere

from builders.backends import get_backend
from builders.planning.order import ModelBuilds
from builders.planning.wanted import build_inputs as build_inputs_of
from builders.planning.wanted import wanted_engines
from builders.recipe.export_form import Form, export_inputs
from builders.weights import identify
from builders.weights.mode import WeightsMode
from zoo.schema.floors import OwnTolerance
from zoo.schema.keys import BuildInputs, KeyTemplate, json_text
from zoo.schema.manifest import BatchRange, Cut, Manifest
from zoo.schema.targets import Precision, RuntimeLine, Toolchain
from zoo.util.digest import canonical_json, sha256_json

PLAIN = records.preprocess()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_a_digest_does_not_depend_on_order(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical_json(turned) == canonical_json(value)
    assert sha256_json(turned) == sha256_json(value)


def test_nan_has_no_digest() -> None:
    with pytest.raises(ValueError, match="JSON"):
        sha256_json({"x": float("nan")})


def build_inputs(**changes: Any) -> BuildInputs:
    values: dict[str, Any] = {
        "model": "resnet50",
        "archs": ("sm86",),
        "precision": "fp16",
        "toolchain": records.toolchain("rtx", cuda=13),
        "profiles": (BatchRange(opt=64, max=256),),
        "options": {"tf32": False},
    }
    return records.build_inputs(**{**values, **changes})


TOOLCHAIN = {"kind": "rtx", "version": "1.7.1.116", "cuda": 13, "os": "linux", "machine": "x86_64"}


@pytest.mark.parametrize(
    "changes",
    [
        {"onnx": "1" * 64},
        {"preprocess": PLAIN.model_copy(update={"mean": (0.4, 0.5, 0.5)})},
        {"archs": ("sm86", "sm89")},
        {"precision": "fp32"},
        {"toolchain": Toolchain.model_validate({**TOOLCHAIN, "version": "1.7.1.117"})},
        {"toolchain": Toolchain.model_validate({**TOOLCHAIN, "cuda": 12})},
        {"toolchain": Toolchain.model_validate({**TOOLCHAIN, "os": "windows"})},
        {"profiles": (BatchRange(opt=32, max=256),)},
        {"profiles": (BatchRange(opt=1, max=8), BatchRange(opt=64, max=256))},
        {"options": {"tf32": True}},
        {"model": "resnet101"},
    ],
    ids=str,
)
def test_every_input_of_a_build_is_in_its_key(changes: dict[str, Any]) -> None:
    assert build_inputs().key == build_inputs().key
    assert build_inputs(**changes).key != build_inputs().key


@given(st.text(), st.text(alphabet="0123456789abcdef", min_size=64, max_size=64))
def test_a_template_gives_the_same_keys(model: str, onnx: str) -> None:
    other = PLAIN.model_copy(update={"crop": 1.0})
    template = KeyTemplate(build_inputs(options={'é"': [1e-7]}), "preprocess", "model", "onnx")
    texts = [json_text(value) for value in (model, onnx, other.model_dump(mode="json"))]
    asked = build_inputs(options={'é"': [1e-7]}, model=model, onnx=onnx, preprocess=other)
    assert template.key(*texts) == sha256_json(asked.model_dump(mode="json"))


def test_a_copy_has_a_key_of_its_own() -> None:
    inputs = build_inputs()
    before = inputs.key
    assert inputs.model_copy(update={"model": "other"}).key == build_inputs(model="other").key
    assert inputs.model_copy().key == before
    assert inputs == build_inputs()  # whether or not its key was asked for


def test_builds_have_the_keys_of_their_inputs(manifests: dict[str, Manifest]) -> None:
    export = records.export_record(largest_tensor=10_000_000)
    for manifest in list(manifests.values())[::9]:
        builds = ModelBuilds(manifest, {})
        for toolchains in everywhere().lines:
            for engine in wanted_engines(manifest, dict(toolchains), None):
                options = get_backend(engine.toolchain.kind).options(engine.toolchain, {})
                asked = build_inputs_of(manifest, engine, export, options)
                build = builds.build(engine, export)
                assert build.inputs == asked
                assert build.key == sha256_json(asked.model_dump(mode="json"))


def export_key(
    manifest: Manifest, precision: Precision = "fp32", calibration: str = "photos"
) -> str:
    form = Form(dialect="dynamo-20", precision=precision)
    return export_inputs(manifest, identify(manifest, WeightsMode.MANIFEST), form, calibration).key


def changed(manifest: Manifest, part: str, **values: Any) -> Manifest:
    table = getattr(manifest, part).model_copy(update=values)
    return manifest.model_copy(update={part: table})


def test_what_changes_an_export_and_what_does_not(manifests: dict[str, Manifest]) -> None:
    lite = manifests["efficientnet_lite0"]
    key = export_key(lite)
    assert export_key(changed(lite, "preprocess", mean=(0.4, 0.5, 0.5))) != key
    assert export_key(changed(lite, "preprocess", crop=0.9)) != key
    assert export_key(changed(lite, "backbone", cut=Cut.FLATTENED)) != key
    assert export_key(changed(lite, "weights", sha256="0" * 64)) != key
    assert export_key(changed(lite, "catalog", title="Another")) == key
    assert export_key(changed(lite, "preprocess", size_reason="Another")) == key
    assert export_key(lite.model_copy(update={"licence": "mit"})) == key
    strict = {
        precision: OwnTolerance(cosine=0.99999) for precision in (Precision.FP32, Precision.INT8)
    }
    stricter = lite.model_copy(update={"tolerance": strict})
    assert export_key(stricter) == key
    # The advisor keeps to the floors, so they decide what an ONNX below fp32 looks like.
    assert export_key(stricter, "int8") != export_key(lite, "int8")


def test_calibration_images_decide_what_is_below_fp32_alone(manifests: dict[str, Manifest]) -> None:
    lite = manifests["efficientnet_lite0"]
    assert export_key(lite, calibration="others") == export_key(lite)
    for precision in ("fp16", "bf16", "int8"):
        assert export_key(lite, precision, "others") != export_key(lite, precision)


def test_each_runtime_gets_the_int8_that_it_fuses(manifests: dict[str, Manifest]) -> None:
    lite = manifests["efficientnet_lite0"]
    lines = ("ort1.32", "8.6", "10.13", "11.4")
    forms = {line: Form.for_line(RuntimeLine.parse(line), "int8") for line in lines}
    assert forms["ort1.32"].name == "int8-onnxruntime-fp32"
    assert forms["8.6"].name == "int8-tensorrt-fp32"
    assert forms["10.13"] == forms["11.4"]
    assert forms["11.4"].name == "int8-tensorrt-fp16"
    weights = identify(lite, WeightsMode.MANIFEST)
    keys = {export_inputs(lite, weights, form, "photos").key for form in forms.values()}
    assert len(keys) == 3
