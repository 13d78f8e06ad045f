"""The sentences that people read, in one place: ``tests/goldens/<room>.toml``.

A test asserts the class of an error, its exit code and its facts. That the sentence reads well is
for whoever reviews the golden file. ``UPDATE_GOLDENS=1 pytest ...`` writes what the code says now.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import tomlkit

from support.paths import ROOT, TESTS

GOLDENS = TESTS / "goldens"


def assert_golden(name: str, text: object, hide: Mapping[object, str] | None = None) -> None:
    """Compares a message with its golden.

    Args:
        name: ``room/what``: the file, and the key in it.
        text: The message, or an error that has it.
        hide: What differs from run to run (a folder, a digest), to the word that stands for it.
            The checkout is hidden as ``ROOT`` anyway.
    """
    said = str(text)
    for part, word in {**(hide or {}), ROOT: "ROOT"}.items():
        said = said.replace(str(part), word)
    said = re.sub(r"[ \t]+$", "", said, flags=re.MULTILINE).strip("\n")
    room, _, what = name.partition("/")
    path = GOLDENS / f"{room}.toml"
    known = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    if os.environ.get("UPDATE_GOLDENS"):
        known[what] = tomlkit.string(said, multiline="\n" in said)
        ordered = tomlkit.document()
        for key in sorted(known):
            ordered[key] = known[key]
        path.write_text(tomlkit.dumps(ordered), encoding="utf-8")
        return
    assert what in known, f"no golden {name}; UPDATE_GOLDENS=1 writes it"
    assert said == str(known[what])
