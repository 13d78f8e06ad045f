"""The sentences that people read, in one place: ``tests/goldens/<room>.toml``.

A test asserts the class of an error, its exit code and its facts. That the sentence reads well is
for whoever reviews the golden file. ``UPDATE_GOLDENS=1 pytest ...`` writes what the code says now.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import tomlkit

from support.paths import ROOT, TESTS
from zoo.util.errors import ZooError

GOLDENS = TESTS / "goldens"

tmp_path: Path | None = None
"""The folder of the test that runs now, hidden as ``TMP``; ``tests/conftest.py`` sets it."""


def assert_golden(name: str, text: object, hide: Mapping[object, str] | None = None) -> None:
    """Compares a message with its golden.

    Args:
        name: ``room/what``: the file, and the key in it.
        text: The message, or an error that has it.
        hide: What differs from run to run, to the word that stands for it. The test's own folder
            is hidden as ``TMP``, the checkout as ``ROOT`` and every SHA-256 as ``SHA256`` anyway.
    """
    shown = str(text)
    hidden = [*(hide or {}).items(), (ROOT, "ROOT")]
    if tmp_path is not None:
        hidden.insert(-1, (tmp_path, "TMP"))
    for part, word in hidden:
        shown = shown.replace(str(part), word)
    shown = re.sub(r"\b[0-9a-f]{64}\b", "SHA256", shown)
    shown = re.sub(r"[ \t]+$", "", shown, flags=re.MULTILINE).strip("\n")
    room, _, what = name.partition("/")
    path = GOLDENS / f"{room}.toml"
    known = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    if os.environ.get("UPDATE_GOLDENS"):
        known[what] = tomlkit.string(shown, multiline="\n" in shown)
        ordered = tomlkit.document()
        for key in sorted(known):
            ordered[key] = known[key]
        path.write_text(tomlkit.dumps(ordered), encoding="utf-8")
        return
    assert what in known, f"no golden {name}; UPDATE_GOLDENS=1 writes it"
    assert shown == str(known[what])


@contextmanager
def raises_golden(
    kind: type[ZooError], name: str, hide: Mapping[object, str] | None = None, *, match: str = ""
) -> Iterator[pytest.ExceptionInfo[ZooError]]:
    """Expects an error of a class and its exit code, whose message is a golden.

    Args:
        kind: The class itself, not one that it derives from.
        name: Of the golden, as ``assert_golden`` takes it.
        hide: As ``assert_golden`` takes it.
        match: A fact (an identifier, a file's name, a number) that the message must contain,
            whatever the golden says; a regular expression.
    """
    with pytest.raises(ZooError, match=match or None) as caught:
        yield caught
    assert type(caught.value) is kind, repr(caught.value)
    assert caught.value.exit_code == kind.exit_code
    assert_golden(name, caught.value, hide)
