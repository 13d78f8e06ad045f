"""Goldens: a message that changed is noticed, and what differs from run to run is hidden."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit
from support import goldens
from support.goldens import assert_golden
from support.paths import TESTS


def test_a_changed_message_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goldens, "GOLDENS", tmp_path)
    monkeypatch.delenv("UPDATE_GOLDENS", raising=False)
    with pytest.raises(AssertionError, match="no golden"):
        assert_golden("room/what", "text")
    monkeypatch.setenv("UPDATE_GOLDENS", "1")
    assert_golden("room/what", f"two lines\nin {tmp_path}  \n", {tmp_path: "FOLDER"})
    monkeypatch.delenv("UPDATE_GOLDENS")
    assert_golden("room/what", "two lines\nin FOLDER")
    with pytest.raises(AssertionError):
        assert_golden("room/what", "two lines")


def names_in(source: str) -> Iterator[str]:
    """Returns what may name a golden in a test, as regular expressions; f-strings hold anything."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+"
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.escape(node.value)


def test_every_golden_is_of_a_test() -> None:
    kept = {
        f"{path.stem}/{what}"
        for path in goldens.GOLDENS.glob("*.toml")
        for what in tomlkit.parse(path.read_text(encoding="utf-8"))
    }
    assert kept
    rooms = tuple({f"{name.partition('/')[0]}/" for name in kept})
    sources = [path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")]
    named = {name for text in sources for name in names_in(text) if name.startswith(rooms)}
    pattern = re.compile("|".join(named))
    assert not {name for name in kept if not pattern.fullmatch(name)}
