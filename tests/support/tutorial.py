"""Runs the tutorial as its reader does: its blocks, in order, in one folder."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from support.paths import ROOT

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_tutorial(
    python: Path, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs every block; one process runs them all, so what one defines the next ones know.

    Args:
        python: The interpreter of the reader's environment.
        folder: Where the reader is.
        environment: The reader's variables.
    """
    blocks = BLOCK.findall((ROOT / "docs" / "tutorial" / "classifier.md").read_text())
    assert len(blocks) >= 12
    assert {kind for kind, _ in blocks} == {"sh", "python"}
    program = "".join(text if kind == "python" else f"run({text!r})\n" for kind, text in blocks)
    setup = (
        "import subprocess\n"
        "def run(text):\n"
        "    subprocess.run(['bash', '-euc', text], check=True)\n"
    )
    return subprocess.run(
        [str(python), "-u", "-c", setup + program],
        capture_output=True, text=True, cwd=folder, env=dict(environment),
    )  # fmt: skip
