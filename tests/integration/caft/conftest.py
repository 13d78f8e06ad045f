"""Fixtures of the tests of features and heads."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from support.caft import Zoo, toy

from zoo.cli import caft, main


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zoo:
    """Runs ``zoo`` in this process and in a folder of its own, with a tiny engine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(caft, "_extractor", lambda *arguments: toy())

    def run(arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["zoo", *shlex.split(arguments)])
        return main.main()

    return run
