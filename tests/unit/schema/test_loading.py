"""The loader of JSON, TOML and files: limits, and no error but its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zoo.util import loading
from zoo.util.loading import parse_json, parse_toml, read_regular


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, "[" * 1000 + "]" * 1000, '{"a":' * 150 + "1" + "}" * 150, "9" * 5000,
        "nothing", "", '{"a": ', "\ud800",
    ],
)  # fmt: skip
def test_json_beyond_the_limits_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the class is what is promised)
        parse_json(text)
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000, "a = " + "{b=" * 500 + "1" + "}" * 500, "a." * 50_000 + "b = 1",
        "[" + "a." * 5000 + "b]\n" + "c = 1\n" * 10, "[[a]]\n" * 50_000, "a = 0x" + "f" * 5000,
        "a = " + "9" * 5000, "a" * 300_000, "a = 1\na = 2", "a = 2026-99-99",
    ],
)  # fmt: skip
def test_toml_beyond_the_limits_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_toml(text)


def test_what_keeps_the_limits_is_read() -> None:
    assert parse_json(b'{"a": [1, {"b": 2}]}') == {"a": [1, {"b": 2}]}
    assert parse_json("[" * 90 + "]" * 90)
    assert parse_toml('[a.b]\nc = [{d = 1}]\ne = "x.y.z"\n') == {
        "a": {"b": {"c": [{"d": 1}], "e": "x.y.z"}}
    }


def test_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(OSError, match="8,589,934,592"):
        read_regular(path)
    monkeypatch.setattr(loading, "LARGEST_TOML", 10)
    with pytest.raises(ValueError, match="11"):
        parse_toml("# long text")
    with pytest.raises(ValueError, match="4"):
        parse_json(b"[1] ", most=3)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError) as raised:  # noqa: PT011
            read_regular(path)
        assert raised.value.strerror
    (tmp_path / "file").write_bytes(b"text")
    assert read_regular(tmp_path / "file") == b"text"
