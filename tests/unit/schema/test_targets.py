from __future__ import annotations

import ast
import json
import re
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.goldens import assert_golden, raises_golden
from support.paths import ROOT

from builders.cli.main import farm_parser
from builders.recipe.export_form import DIALECTS
from zoo.cli.main import run_cli
from zoo.schema.targets import (
    PRECISIONS,
    Arch,
    EngineName,
    Label,
    RuntimeLine,
    Target,
    dialect_of,
    gpu_lines,
    known_archs,
    known_lines,
    label_of,
    line_facts,
    lines_for,
    parse_precision,
    refusal,
    served_archs,
    units_of,
)
from zoo.schema.targets_table import Table, target_table
from zoo.util.errors import TargetError, UsageError
from zoo.util.toml import toml

archs = st.sampled_from(known_archs()).map(Arch)
versions = st.tuples(st.integers(0, 99), st.integers(0, 99)).map(lambda v: f"{v[0]}.{v[1]}")
lines = st.builds(RuntimeLine, st.sampled_from(["trt", "rtx", "ort"]), versions)
targets = st.builds(Target, archs, lines, st.sampled_from(PRECISIONS), st.booleans())


@given(targets)
def test_parse_inverts_str(target: Target) -> None:
    assert Target.parse(str(target)) == target


@given(st.lists(archs, min_size=1, unique=True), targets)
def test_a_joined_label_reads_back(several: list[Arch], target: Target) -> None:
    label = label_of(several, target.line, target.precision, mixed=target.mixed)
    assert Label.read(str(label)) == label
    assert label.archs == tuple(arch.name for arch in several)
    assert (label.arch, label.runtime) == (several[0].name, target.line)
    assert (label.precision, label.mixed) == (target.precision, target.mixed)
    alone = [str(Target(arch, target.line, target.precision, target.mixed)) for arch in several]
    assert Label.joined(alone) == label
    assert Label.read(label.cell) == label_of(several, target.line, target.precision)
    name = EngineName("resnet50", label)
    assert EngineName.read(str(name)) == name
    assert (name.model, str(name)) == ("resnet50", f"resnet50 {label}")


def test_the_name_of_a_whole_model_has_no_label() -> None:
    assert EngineName.read("resnet50") == EngineName("resnet50")
    assert str(EngineName("resnet50")) == "resnet50"


@given(st.text(max_size=30))
def test_reading_a_label_never_fails(text: str) -> None:
    label = Label.read(text)
    assert label.archs
    assert str(label.runtime) == label.line


def test_a_joined_label_is_no_target() -> None:
    with pytest.raises(UsageError, match=r"'sm80\+sm86'"):
        Target.parse("sm80+sm86-rtx1.7-fp16")


NO_LABELS = {
    ("builders/measure/comparison.py", "+"),  # labels, whole
    ("builders/measure/costs.py", "+"),
    ("zoo/client/selection.py", "+"),
    ("zoo/schema/attestation_names.py", "-"),  # the kind in an attestation's name
}
"""Where a text that is no part of a label is split or joined at a label's separators."""


def test_labels_are_split_and_joined_in_one_place() -> None:
    elsewhere = set()
    for path in [*(ROOT / "zoo").rglob("*.py"), *(ROOT / "builders").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if sign := _separator(node):
                elsewhere.add((path.relative_to(ROOT).as_posix(), sign))
    own = {("zoo/schema/targets.py", "-"), ("zoo/schema/targets.py", "+")}
    assert elsewhere - own == NO_LABELS
    assert own <= elsewhere


def _separator(node: ast.AST) -> str:
    """Returns at which separator of labels a call splits or joins text; empty for others."""
    cuts = {"split", "rsplit", "partition", "rpartition", "removesuffix", "join"}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return ""
    if node.func.attr not in cuts:
        return ""
    texts = [arg for arg in (node.func.value, *node.args) if isinstance(arg, ast.Constant)]
    signs = [one.value for one in texts if one.value in ("-", "+", "-mixed")]
    return str(signs[0]) if signs else ""


@given(lines)
def test_a_line_parses_back(line: RuntimeLine) -> None:
    assert RuntimeLine.parse(str(line)) == line


def test_a_bare_version_is_standard_tensorrt() -> None:
    assert str(RuntimeLine.parse("11.4")) == "trt11.4"


@given(st.text(max_size=30))
def test_any_text_is_a_target_or_a_usage_error(text: str) -> None:
    try:
        target = Target.parse(text)
    except UsageError as error:
        assert error.hint
    else:
        assert str(target) == text or text.replace("-", "-trt", 1) == str(target)


@pytest.mark.parametrize(
    ("text", "near"),
    [("sm87-rtx1.7-fp16", "sm89"), ("sm86-rtx1.7-fp61", "fp16"), ("cpx-ort1.32-fp32", "cpu")],
)
def test_a_near_miss_is_named(text: str, near: str) -> None:
    with raises_golden(UsageError, f"schema/no-target-{text}", match=f"'{near}'"):
        Target.parse(text)


def test_compute_capabilities() -> None:
    assert Arch("sm86").compute_capability == (8, 6)
    assert Arch("sm120").compute_capability == (12, 0)


ALL_LINES = [RuntimeLine.parse(name) for name in known_lines()]
CELLS = [(Arch(name), line) for line in ALL_LINES for name in known_archs()]
SERVED = [(arch, line) for arch, line in CELLS if arch.name in served_archs(line)]
NOT_SERVED = [pair for pair in CELLS if pair not in SERVED]


@pytest.mark.parametrize(("arch", "line"), CELLS, ids=str)
def test_a_cell_is_served_or_says_why_not_and_has_a_source(arch: Arch, line: RuntimeLine) -> None:
    groups = [one for one in line_facts(line).cells if arch.name in one.archs]
    assert len(groups) == 1
    cell = line_facts(line).cell(arch.name)
    assert bool(cell.precisions) != bool(cell.why_not)
    assert set(cell.precisions) <= set(units_of(arch))
    assert cell.note or not cell.without
    assert re.search(r"https://\S+\.\w+/|\bwheel\b", cell.source)
    for precision in PRECISIONS:
        reason = refusal(Target(arch, line, precision))
        assert (reason is None) == (precision in cell.precisions)


@pytest.mark.parametrize(("arch", "line"), SERVED, ids=str)
def test_a_served_cell_names_driver_and_container(arch: Arch, line: RuntimeLine) -> None:
    facts, cell = line_facts(line), line_facts(line).cell(arch.name)
    assert bool(cell.driver) == (not arch.is_cpu)
    oldest = {13: 580, 12: 525}  # docs.nvidia.com/deploy/cuda-compatibility: minor versions
    assert all(driver >= oldest[cuda] for cuda, driver in cell.driver.items())
    assert not cell.driver or facts.driver_source
    pinned = r"nvcr\.io/nvidia/tensorrt:\d\d\.\d\d-py3@sha256:[0-9a-f]{64}"
    assert cell.container in ("none", "unlocked") or re.fullmatch(pinned, cell.container)
    assert cell.container != "unlocked" or facts.container_note


@pytest.mark.parametrize(("arch", "line"), NOT_SERVED, ids=str)
def test_a_refused_cell_names_reason_and_alternatives(arch: Arch, line: RuntimeLine) -> None:
    reason = refusal(Target(arch, line, "fp32"))
    assert reason is not None
    assert str(line_facts(line).cell(arch.name).why_not) in reason
    assert all(name in reason for name in served_archs(line))
    assert lines_for(arch)
    assert all(one.asked in reason for one in lines_for(arch))


def test_trt_names_each_line() -> None:
    asked = ["rtx1.7", "11.4", "10.16", "10.13", "8.6"]
    assert [line.asked for line in gpu_lines()] == asked
    assert [RuntimeLine.parse(text) for text in asked] == gpu_lines()


def test_a_cell_may_differ_from_its_line() -> None:
    line = line_facts(RuntimeLine.parse("11.4"))
    assert line.cell("sm86").driver == line.driver
    assert line.cell("sm120").driver == {13: 580} != line.driver


def drop_from_cells(table: dict[str, Any], precision: str) -> None:
    cells = [cell for line in table["line"].values() for cell in line["cells"]]
    for cell in cells:
        if precision in cell.get("precisions", ()):
            cell["precisions"].remove(precision)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["line"]["trt11.4"].update(contaner="none"),
        lambda table: table["line"]["trt11.4"]["cells"][0].update(precisions=["fp61"]),
        lambda table: table["arch"]["sm86"].pop("source"),
        lambda table: table["precision"].update(int8=table["precision"]["fp8"]),
        lambda table: drop_from_cells(table, "bf16"),
    ],
)
def test_a_mistake_in_the_table_is_found(change: Any) -> None:
    table = toml.loads(files("zoo.schema").joinpath("targets.toml").read_text(encoding="utf-8"))
    assert Table.model_validate(table) == target_table()
    change(table)
    with pytest.raises(ValidationError):
        Table.model_validate(table)


def test_each_line_reads_a_dialect_that_is_exported() -> None:
    assert {dialect_of(line) for line in ALL_LINES} == set(DIALECTS)
    assert dialect_of(RuntimeLine.parse("8.6")) == "torchscript-17"
    with pytest.raises(TargetError, match=r"TensorRT 9\.9"):
        dialect_of(RuntimeLine.parse("9.9"))


def test_what_can_not_be_had_says_why() -> None:
    for target in ("sm90-rtx1.7-fp16", "sm120-trt8.6-fp16", "sm86-trt9.9-fp16", "cpu-ort1.32-fp16"):
        assert_golden(f"schema/refusal-{target}", refusal(Target.parse(target)))
    assert refusal(Target.parse("sm86-rtx1.7-fp16")) is None


@pytest.mark.parametrize(
    ("text", "archs", "line", "taken"),
    [
        ("fp8", "sm80", None, "sm80"),
        ("fp8", "sm80", "11.4", r"sm80 .*fp32, bf16, fp16, int8 .*11\.4"),
        ("fp8", "sm89", "11.4", r"sm89 .*int8 .*11\.4"),
        ("fp8", "sm89", "8.6", r"sm89 .*int8 .*8\.6"),
        ("fp8", "sm80 sm89", None, "sm89"),
        ("fp4", "sm90", None, "sm90"),
        ("fp8", "", None, "PRECISION=.*fp32, bf16, fp16, int8"),
    ],
)
def test_a_precision_that_is_not_made_is_refused_with_what_is(
    text: str, archs: str, line: str | None, taken: str
) -> None:
    asked = RuntimeLine.parse(line) if line else None
    golden = f"schema/{text}-on-{archs.replace(' ', '-') or 'any'}-{line or 'any'}"
    with raises_golden(TargetError, golden) as caught:
        parse_precision(text, [Arch(name) for name in archs.split()], asked)
    assert re.search(taken, caught.value.hint or "")


@pytest.mark.parametrize(
    ("target", "fact"),
    [
        ("sm75-trt11.4-bf16", "sm75"),
        ("sm86-rtx1.7-int8", "11.4, 10.16, 10.13, 8.6"),
        ("cpu-ort1.32-bf16", "bf16"),
        ("sm90-trt8.6-bf16", "9.0"),
    ],
)
def test_a_precision_that_a_target_does_not_take_is_refused(target: str, fact: str) -> None:
    refused = refusal(Target.parse(target))
    assert fact in str(refused)
    assert_golden(f"schema/refusal-{target}", refused)


@pytest.mark.parametrize("target", ["cpu-ort1.32-int8", "sm90-trt8.6-int8", "sm86-rtx1.7-bf16"])
def test_a_precision_that_a_target_takes_is_not(target: str) -> None:
    assert refusal(Target.parse(target)) is None


def test_a_target_says_when_operators_are_kept_higher() -> None:
    target = Target.parse("cpu-ort1.32-int8-mixed")
    assert (target.precision, target.mixed) == ("int8", True)
    assert str(target) == "cpu-ort1.32-int8-mixed"
    with raises_golden(UsageError, "schema/no-target-mixd", match="mixd"):
        Target.parse("cpu-ort1.32-int8-mixd")


def test_a_recipe_is_not_promised_where_the_units_are_missing() -> None:
    with pytest.raises(TargetError) as caught:
        parse_precision("fp8", [Arch("sm80"), Arch("sm86")])
    assert {"sm80", "sm86", "fp8"} <= set(re.findall(r"\w+", caught.value.message))
    assert "recipe" not in caught.value.message


def test_a_precision_that_is_made_is_taken() -> None:
    assert parse_precision("fp16", [Arch("cpu")]) == "fp16"  # who takes it is refusal's to say
    assert set(PRECISIONS).isdisjoint(target_table().precision)


def shown(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert run_cli(farm_parser(), ["targets", *options]) == 0
    return capsys.readouterr().out


def test_the_table_is_readable_in_a_hundred_columns(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys)
    assert max(map(len, text.splitlines())) <= 100
    header, *rows = text.split("\n\n")[1].splitlines()
    columns = [name.split() for name in re.split(r"  +", header)[1:]]
    assert [line for names in columns for line in names] == [line.asked for line in ALL_LINES]
    starts = [*(header.index(" ".join(names)) for names in columns), 1000]
    notes = dict(re.findall(r"^(\[\d+\]) +(.+)$", text, flags=re.MULTILINE))
    assert [row.split()[0] for row in rows] == known_archs()
    for row in rows:
        for number, names in enumerate(columns):
            cell = row[starts[number] : starts[number + 1]]
            for line in map(RuntimeLine.parse, names):
                facts = line_facts(line).cell(row.split()[0])
                assert cell.replace("-", "").split("[")[0].split() == [*facts.precisions]
                said = [notes[mark] for mark in re.findall(r"\[\d+\]", cell)]
                assert said == [one for one in (facts.why_not, facts.note) if one]


def test_the_table_says_which_precisions_are_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert "fp8 and fp4 are planned" in shown(capsys)


def test_the_table_says_what_the_farm_makes_in_one_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    headings = [line for line in shown(capsys).splitlines() if line.endswith(":")]
    for heading in headings:
        assert not set(PRECISIONS) & set(re.findall(r"\w+", heading)), heading


def test_the_table_shows_what_a_line_needs(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys)
    rows = [re.split(r"  +", line) for line in text.splitlines()]
    [row] = [row for row in rows if row[1:2] == ["TensorRT 11.4"]]
    assert row == ["11.4", "TensorRT 11.4", "13, 12", "580, 535", "dynamo-20", "unlocked"]
    assert "pip install 'tensorrt-cu13==11.4.*'" in text
    assert "CPython 3.10 at most" in text


def test_the_table_shows_sources_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    brief, full = shown(capsys), shown(capsys, "--sources")
    for line in ALL_LINES:
        facts = line_facts(line)
        for source in (*(cell.source for cell in facts.cells), facts.dialect_source):
            assert source in full
            assert source not in brief


def test_the_table_is_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    table = json.loads(shown(capsys, "--json"))
    assert {(cell["gpu"], cell["line"]) for cell in table["cells"]} == {
        (arch.name, str(line)) for arch, line in CELLS
    }
    by_cell = {(cell["gpu"], cell["line"]): cell for cell in table["cells"]}
    assert all(cell["source"] for cell in table["cells"])
    assert all(cell["served"] != bool(cell["why_not"]) for cell in table["cells"])
    ampere = by_cell["sm86", "trt11.4"]
    assert (ampere["precisions"], ampere["cuda"]) == (["fp32", "bf16", "fp16", "int8"], [13, 12])
    assert ampere["driver"] == {"13": 580, "12": 535}
    assert by_cell["sm90", "rtx1.7"]["container"] is None
    assert table["lines"]["trt8.6"]["dialect"] == "torchscript-17"
