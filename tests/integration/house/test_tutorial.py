"""The tutorial does what it says: its blocks are run, in order, in one folder."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from support.make_farm import Farm
from support.tutorial import run_tutorial


def test_every_block_of_the_tutorial_runs(farm: Farm, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        **os.environ, "PATH": path, "ZOO_STORE": str(farm.store),
        **farm.trusted_in(tmp_path / "home"),
    }  # fmt: skip
    done = run_tutorial(Path(sys.executable), tmp_path, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert re.search(r"cache: 18 images, 3 classes, 1,280 features\b.*\bfp32\b.*\b0 ", said)
    assert "cache: 19 images, 3 classes" in said
    assert "1 image in" in said  # the others were done before
    assert said.count("(95% interval") == 4
    assert re.search(r"classifier\.onnx: .* (0|\de-\d\d) ", said)  # the difference
    assert (tmp_path / "head.png").is_file()
