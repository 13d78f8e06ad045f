from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from builders.cli.main import farm_parser
from builders.recipe.export_form import DIALECTS
from zoo.cli.main import run_cli
from zoo.schema.targets import (
    PRECISIONS,
    Arch,
    RuntimeLine,
    Target,
    dialect_of,
    gpu_lines,
    known_archs,
    known_lines,
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
    with pytest.raises(UsageError, match=f"Perhaps you meant '{near}'"):
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


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["line"]["trt11.4"].update(contaner="none"),
        lambda table: table["line"]["trt11.4"]["cells"][0].update(precisions=["fp61"]),
        lambda table: table["arch"]["sm86"].pop("source"),
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
    with pytest.raises(TargetError, match=r"TensorRT 9\.9 is not in the targets table"):
        dialect_of(RuntimeLine.parse("9.9"))


def test_what_can_not_be_had_says_why() -> None:
    assert "no code for sm90" in str(refusal(Target.parse("sm90-rtx1.7-fp16")))
    assert "older than Blackwell" in str(refusal(Target.parse("sm120-trt8.6-fp16")))
    assert "is not in the targets table" in str(refusal(Target.parse("sm86-trt9.9-fp16")))
    reason = str(refusal(Target.parse("cpu-ort1.32-fp16")))
    assert "cast fp16 weights back" in reason
    assert "fp16 is supported on sm75, sm80, sm86, sm89, sm90, sm100, sm120" in reason
    assert refusal(Target.parse("sm86-rtx1.7-fp16")) is None


@pytest.mark.parametrize(
    ("text", "archs", "line", "reason", "hint"),
    [
        (
            "fp8",
            "sm80",
            None,
            r"sm80 has no fp8 units \(sm89, sm90, sm100, sm120 have",
            "sm80 supports",
        ),
        (
            "fp8",
            "sm80",
            "11.4",
            "sm80 has no fp8 units",
            "sm80 supports fp32, bf16, fp16, int8 with 11.4",
        ),
        ("fp8", "sm89", "11.4", "fp8 is planned, .* it takes .*Q/DQ", "int8 with 11.4"),
        ("fp8", "sm89", "8.6", "reads fp8 from 9.0 on", "int8 with 8.6"),
        ("fp8", "sm80 sm89", None, "sm80 has no fp8 units .*no recipe", "sm89 supports"),
        ("fp4", "sm90", None, r"sm90 has no fp4 units \(sm100, sm120 have", "sm90 supports"),
        ("fp8", "", None, "fp8 is planned", "PRECISION= takes fp32, bf16, fp16, int8"),
    ],
)
def test_a_precision_that_is_not_made_is_refused_with_what_is(
    text: str, archs: str, line: str | None, reason: str, hint: str
) -> None:
    asked = RuntimeLine.parse(line) if line else None
    with pytest.raises(TargetError, match=reason) as caught:
        parse_precision(text, [Arch(name) for name in archs.split()], asked)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("sm75-trt11.4-bf16", "sm75 has no bf16 units"),
        (
            "sm86-rtx1.7-int8",
            "no int8 convolution; sm86 supports int8 with 11.4, 10.16, 10.13, 8.6",
        ),
        ("cpu-ort1.32-bf16", "has no bf16 convolution"),
        ("sm90-trt8.6-bf16", "reads bf16 from 9.0 on"),
    ],
)
def test_a_precision_that_a_target_does_not_take_is_refused(target: str, reason: str) -> None:
    assert reason in str(refusal(Target.parse(target)))


@pytest.mark.parametrize("target", ["cpu-ort1.32-int8", "sm90-trt8.6-int8", "sm86-rtx1.7-bf16"])
def test_a_precision_that_a_target_takes_is_not(target: str) -> None:
    assert refusal(Target.parse(target)) is None


def test_a_target_says_when_operators_are_kept_higher() -> None:
    target = Target.parse("cpu-ort1.32-int8-mixed")
    assert (target.precision, target.mixed) == ("int8", True)
    assert str(target) == "cpu-ort1.32-int8-mixed"
    with pytest.raises(UsageError, match="is not a target"):
        Target.parse("cpu-ort1.32-int8-mixd")


def test_a_recipe_is_not_promised_where_the_units_are_missing() -> None:
    with pytest.raises(TargetError) as caught:
        parse_precision("fp8", [Arch("sm80"), Arch("sm86")])
    assert "sm80, sm86 have no fp8 units" in caught.value.message
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
