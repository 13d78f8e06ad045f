"""Accuracy on labelled photos: which are taken, what is measured, and the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SMALL
from farm import Farm
from PIL import Image

from builders.accuracy import FOLDS, linear_probe
from builders.calibration import shipped
from builders.labelled import LEAST_OF_CLASS, imagenet_sample, read_labelled
from zoo.errors import UsageError
from zoo.preprocess import open_photo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Crops of three photos, a class each: easy to tell apart."""
    random = np.random.default_rng(0)
    for path in shipped().paths[:3]:
        photo, kind = open_photo(path), tmp_path / "labelled" / path.stem
        kind.mkdir(parents=True)
        for number in range(2 * LEAST_OF_CLASS):
            left, top = (int(random.integers(0, size // 2)) for size in photo.size)
            box = (left, top, left + photo.width // 2, top + photo.height // 2)
            photo.crop(box).save(kind / f"{number}.png")
    return tmp_path / "labelled"


def test_a_folder_for_each_class_is_read_and_what_is_left_out_is_said(folder: Path) -> None:
    first = sorted(folder.iterdir())[0]
    (first / "broken.jpg").write_bytes(b"no photo")
    (folder / "few").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "few" / "one.png")
    said: list[str] = []
    labelled = read_labelled(folder, said.append)
    assert labelled.classes == 3
    assert len(labelled.photos) == len(labelled.labels) == 6 * LEAST_OF_CLASS
    assert not labelled.imagenet
    assert len(said) == 2
    assert "broken.jpg" in "".join(said)
    assert f"few has 1 photos, {LEAST_OF_CLASS} are needed" in "".join(said)


def test_one_class_is_not_enough(folder: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    sorted(folder.iterdir())[0].rename(one / "class")
    with pytest.raises(UsageError, match="1 classes can be used, two are needed"):
        read_labelled(one, lambda _: None)
    with pytest.raises(UsageError, match="no such folder"):
        read_labelled(tmp_path / "nowhere", lambda _: None)


def test_twenty_labelled_photos_come_from_a_package() -> None:
    labelled = imagenet_sample()
    assert labelled.imagenet
    assert len(labelled.photos) == 20
    assert labelled.labels[:3].tolist() == [243, 559, 438]


def test_a_linear_probe_tells_good_features_from_bad() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 4 * FOLDS)
    noise = random.standard_normal((len(labels), 16)).astype(np.float32)
    good = noise.copy()
    good[:, 3] += 20 * labels
    assert linear_probe(good, labels) == 1.0
    worse = linear_probe(noise, labels)
    assert worse is not None
    assert worse < 0.9
    assert linear_probe(good, labels) == linear_probe(good, labels)
    assert linear_probe(good[: 4 * FOLDS + 2], labels[: 4 * FOLDS + 2]) is None


def test_engines_are_measured_beside_pytorch(dry_run_copy: Farm, folder: Path) -> None:
    command = [sys.executable, "-m", "builders.cli", "--manifests", str(dry_run_copy.manifests)]
    command += ["accuracy", "--store", str(dry_run_copy.store), "--models", SMALL]
    done = subprocess.run(
        [*command, "--labelled", str(folder)], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if SMALL in line]
    assert [row[1] for row in rows] == ["PyTorch", "cpu-ort1.32-fp32"]
    assert rows[0][3] == rows[1][3]
    assert rows[0][3].endswith("%")
    assert float(rows[1][4]) > 0.9999
    assert "3 classes in a maintainer's folder" in done.stdout
    refused = subprocess.run(
        [*command, "--labelled", str(folder / "nowhere")],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "no such folder" in refused.stderr
