"""The tutorial does what it says: its blocks are run, in order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.make_farm import Farm
from support.paths import ROOT

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_of_the_tutorial_runs(farm: Farm, tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "tutorial" / "classifier.md").read_text())
    assert len(blocks) >= 12
    assert {kind for kind, _ in blocks} == {"sh", "python"}
    # One process runs them all: what a Python block defines, the next ones know.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        **os.environ, "PATH": path, "ZOO_STORE": str(farm.store),
        **farm.trusted_in(tmp_path / "home"),
    }  # fmt: skip
    program = "".join(text if kind == "python" else f"run({text!r})\n" for kind, text in blocks)
    setup = (
        "import subprocess\n"
        "def run(text):\n"
        "    subprocess.run(['bash', '-euc', text], check=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-u", "-c", setup + program],
        capture_output=True, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert "cache: 16 images, 3 classes, 1280 features in fp32; 0 skipped" in said
    assert "cache: 17 images, 3 classes" in said
    assert "1 image in" in said  # the others were done before
    assert said.count("held-out images (95% interval") == 4
    assert "differs by at most" in re.findall(r"classifier\.onnx: .*", said)[0]
    assert (tmp_path / "head.png").is_file()
