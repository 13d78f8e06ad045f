"""``make demo``: real photos in regions that do not overlap, or one's own."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.caft import folder, photo
from support.make_farm import Farm
from support.paths import ROOT

from examples.demo_photos import LEAST_SIDE, _regions, own_photos, regions_of_photos
from zoo.util.errors import DatasetError


@pytest.mark.parametrize("size", [(512, 512), (640, 427), (1411, 1411), (450, 200)])
def test_regions_do_not_overlap(size: tuple[int, int]) -> None:
    numbers = np.arange(size[0] * size[1], dtype=np.uint32).reshape(size[1], size[0])
    image = Image.fromarray(np.stack([numbers >> 16, numbers >> 8, numbers], 2).astype(np.uint8))
    found = [np.asarray(region).reshape(-1, 3) for region in _regions(image)]
    pixels = np.concatenate(found)
    assert len(np.unique(pixels, axis=0)) == len(pixels) == size[0] * size[1]
    assert all(min(region.size) >= LEAST_SIDE for region in _regions(image))
    assert _regions(photo(1, (199, 500))) == []


def test_labels_cannot_be_read_from_names_or_order(tmp_path: Path) -> None:
    said: list[str] = []
    made = regions_of_photos(tmp_path, said.append)
    assert said == []  # the packages could be had
    rows = list(csv.reader(made.data.open()))[1:]
    labels = [label for _, label in rows]
    assert len(set(labels)) >= 25
    assert len(rows) >= 4 * len(set(labels))
    assert [name for name, _ in rows] == [f"{number:03d}.png" for number in range(len(rows))]
    same = sum(one == two for one, two in pairwise(labels))
    assert same <= len(rows) * 0.15  # sorted by label it were nearly all
    digests = {(tmp_path / name).read_bytes() for name, _ in rows}
    assert len(digests) == len(rows)
    grey = [
        name for name, _ in rows
        if (np.ptp(np.asarray(Image.open(tmp_path / name)), axis=2) == 0).all()
    ]  # fmt: skip
    assert not grey


def test_the_demo_runs_on_ones_own_photos(farm: Farm, tmp_path: Path) -> None:
    data = folder(tmp_path / "mine", classes=2, each=10)
    (data / "class0" / "bad.jpg").write_text("no photo")
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--data", str(data), "--store", str(farm.store),
         "--output", str(tmp_path / "out")],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
        env={**os.environ, **farm.trusted_in(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "bad.jpg" in done.stderr  # skipped, with the reason
    assert re.search(r"photos +21 photos", done.stdout)
    assert "on 6 held-out" in done.stdout
    assert re.search(r"\d times as fast", done.stdout)
    assert (tmp_path / "out" / "demo.png").is_file()


def test_photos_of_ones_own_are_checked_before_anything_is_built(tmp_path: Path) -> None:
    command = ["make", "--no-print-directory", "--dry-run", "PYTHON=python3", "demo", "DATA=mine"]
    made = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert made.index('--data "mine" --check') < made.index("zoo-farm")
    for data, status in [(folder(tmp_path / "two", classes=2, each=1), 0), (tmp_path / "no", 30)]:
        done = subprocess.run(
            [sys.executable, "-m", "examples.demo", "--data", str(data), "--check"],
            capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
    one = folder(tmp_path / "one", classes=1)
    with pytest.raises(DatasetError, match=r"\b1 class") as raised:
        own_photos(one, tmp_path / "list")
    assert str(one) in str(raised.value)
