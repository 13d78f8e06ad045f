"""Hints to build an engine: the farm accepts each, and where it would refuse there is none."""

from __future__ import annotations

import re
import shlex

import pytest
from support.records import engine_entry, model_index, toolchain

from builders.cli.main import farm_parser
from builders.cli.request import read_request
from builders.planning.wanted import check_request
from zoo.client.selection import Machine, select
from zoo.schema.build_hint import build_hint, buildable
from zoo.schema.precisions import Precision
from zoo.schema.runtimes import Runtime
from zoo.schema.targets import RuntimeLine, gpu_lines, known_archs, lines_for
from zoo.util.errors import SelectionError, ZooError

MODELS = {"resnet50": "resnet", "vit_base_patch16_224": "vit"}


def accepted(hint: str) -> None:
    """Reads the hint's variables as the farm does, with the tables alone: nothing is installed."""
    assert ": make zoo " in hint
    words = shlex.split(hint.partition("make zoo ")[2])
    flags = [
        word for name, value in (word.split("=") for word in words)
        for word in (f"--{name.lower()}", value)
    ]  # fmt: skip
    options = farm_parser().parse_args(["plan", *flags])
    selected = read_request(options, print, plans=True)
    selected.chosen.executor.stop()
    (manifest,) = selected.request.manifests.values()
    lines = {
        arch: selected.lines[0] if selected.lines else lines_for(arch)[0]
        for arch in selected.chosen.archs
    }
    check_request(lines, selected.request.precisions or (), manifest.family)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("arch", [*known_archs(), "sm87", "sm60"])
def test_a_hint_is_accepted_or_there_is_none(model: str, arch: str) -> None:
    for precision in (None, *Precision):
        hint = build_hint(model, arch=arch, precision=precision, family=MODELS[model])
        possible = arch in known_archs() and (
            precision is None or precision in buildable(arch, MODELS[model])
        )
        assert (hint is not None) == possible
        if hint is not None:
            accepted(hint)


@pytest.mark.parametrize(
    "version", [*(line.version for line in gpu_lines() if line.kind is Runtime.TRT), "10.5"]
)
def test_a_version_that_the_farm_does_not_know_is_not_recommended(version: str) -> None:
    hint = build_hint("resnet50", line=RuntimeLine(Runtime.TRT, version))
    assert (hint is None) == (version == "10.5")
    if hint is not None:
        accepted(hint + " GPU=sm86")


ORT = toolchain("ort", "1.32.0")
LAPTOP = Machine(archs=("cpu",), toolchains=(ORT,))


@pytest.mark.parametrize(
    ("engine", "asked", "recommended"),
    [
        (engine_entry("cpu-ort1.32-fp32"), {"precision": "fp16"}, "use --precision fp32"),
        (engine_entry("sm86-rtx1.7-fp16"), {"precision": "fp16"}, "make zoo"),
        (engine_entry("cpu-ort1.32-fp32"), {"precision": "int8"}, "make zoo"),
        (
            engine_entry("cpu-ort1.32-fp32", status="withdrawn", reason="row 3"),
            {},
            "zoo show m lists its other engines",
        ),
        (
            engine_entry("cpu-ort1.32-fp32", status="withdrawn", reason="row 3"),
            {"target": "cpu-ort1.32-fp32"},
            "zoo show m lists its other engines",
        ),
    ],
)
def test_nothing_refused_is_recommended(
    engine: object, asked: dict[str, str], recommended: str
) -> None:
    with pytest.raises(SelectionError) as caught:
        select(model_index(engine), LAPTOP, **asked)
    assert recommended in str(caught.value.hint)
    for precision in re.findall("fp32|bf16|fp16|int8", recommended):
        assert select(model_index(engine), LAPTOP, precision=precision) == engine
        assert str(caught.value.hint).endswith(precision)  # nor another one
    assert ("make zoo" in str(caught.value.hint)) == (recommended == "make zoo")


def test_a_machine_that_the_farm_does_not_know_gets_no_command() -> None:
    orin = Machine(archs=("sm87", "cpu"), toolchains=())
    with pytest.raises(SelectionError) as caught:
        select(model_index(engine_entry("sm86-rtx1.7-fp16")), orin)
    assert "make zoo" not in str(caught.value.hint)


def test_the_check_itself_refuses() -> None:
    with pytest.raises(ZooError):
        accepted("in a checkout of the farm: make zoo MODELS=resnet50 GPU=cpu PRECISION=fp16")
