from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import UsageError
from zoo.target import (
    PRECISIONS,
    Arch,
    RuntimeLine,
    Target,
    known_archs,
    known_lines,
    refusal,
    served_archs,
)

archs = st.sampled_from(known_archs()).map(Arch)
versions = st.tuples(st.integers(0, 99), st.integers(0, 99)).map(lambda v: f"{v[0]}.{v[1]}")
lines = st.builds(RuntimeLine, st.sampled_from(["trt", "rtx", "ort"]), versions)
targets = st.builds(Target, archs, lines, st.sampled_from(PRECISIONS))


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


def test_every_line_of_the_table_says_where_it_is_from_and_parses() -> None:
    assert known_lines()
    for name in known_lines():
        assert str(RuntimeLine.parse(name)) == name
        served = served_archs(RuntimeLine.parse(name))
        assert set(served) <= set(known_archs())
        assert all(set(precisions) <= set(PRECISIONS) for precisions in served.values())


def test_what_can_not_be_had_says_why() -> None:
    assert "sm90" in str(refusal(Target.parse("sm90-rtx1.7-fp16")))
    assert "cast" in str(refusal(Target.parse("cpu-ort1.32-fp16")))
    assert refusal(Target.parse("sm86-rtx1.7-fp16")) is None
