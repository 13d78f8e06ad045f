"""README's commands for a repository that exists: they are run, in order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from skimage import data, io
from support.make_farm import Farm
from support.paths import ROOT

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_engines_and_heads_are_used_as_readme_says(farm: Farm, tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    for name in ("coffee", "rocket"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for left in range(0, 400, 50):
            io.imsave(folder / f"{left}.png", getattr(data, name)()[:200, left : left + 200])
    for name in ("photo.jpg", "cat.jpg", "dog.jpg"):
        io.imsave(tmp_path / name, data.chelsea())
    environment = {
        **os.environ, "ZOO_STORE": str(farm.store), **farm.trusted_in(tmp_path / "home"),
    }  # fmt: skip
    for language, text in BLOCK.findall((ROOT / "README.md").read_text())[1:4]:
        command = ["bash", "-euc"] if language == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*command, text], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "photo.efficientnet_lite0.npy").is_file()
