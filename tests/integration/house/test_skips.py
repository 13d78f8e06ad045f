"""In CI nothing is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT


@pytest.mark.parametrize(("in_ci", "status"), [("true", 1), ("", 0)])
def test_nothing_is_skipped_in_ci(in_ci: str, status: int, tmp_path: Path) -> None:
    test = tmp_path / "test_it.py"
    test.write_text("import pytest\ndef test_it():\n    pytest.skip('no browser here')\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-c", "/dev/null", str(test)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "CI": in_ci, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )
    assert done.returncode == status, done.stdout
    assert (": no browser here" in done.stdout) == bool(status)
    assert ("1 x no browser here" in done.stdout) == (not status)
