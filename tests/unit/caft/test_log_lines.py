"""Lines of a cache's log, which are put together by hand: they are what ``json`` would write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zoo.caft.files import encode, key_of, line_of
from zoo.caft.sample import Sample

TEXT = st.text(st.characters(), max_size=20)  # lone surrogates, control characters, quotes


@given(TEXT, st.none() | TEXT, st.none() | TEXT)
@example("\udd00", "\ud800", "\udfff")
def test_a_line_is_that_of_json(name: str, label: str | None, error: str | None) -> None:
    sample = Sample(name=name, label=label, read=bytes)
    line: dict[str, Any] = {"key": key_of(sample), "name": name.encode("utf-8", "replace").decode()}
    if label is not None:
        line["label"] = label
    line.update({"sha256": "ab"} if error is None else {"error": error})
    made = line_of(sample, label, "ab", error)
    assert made == encode(line)  # type: ignore[arg-type]
    assert json.loads(made)["key"] == key_of(sample)


@pytest.mark.parametrize("name", ["a.jpg", "ä.jpg", "\udcff.jpg", "\n"])
def test_a_line_is_one_line(name: str) -> None:
    made = line_of(Sample(name=name, label=None, read=bytes), None, "ab")
    assert made.count(b"\n") == 1
