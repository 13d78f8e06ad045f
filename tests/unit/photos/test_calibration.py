"""Calibration images: which are taken, which are left out and said, and what is never shared."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.goldens import raises_golden
from support.records import small_preprocess

from builders.photos import bundled
from builders.photos.calibration import LEAST, CalibrationSet, from_folder, shipped
from zoo.inference.preprocess import fit, open_photo
from zoo.util.digest import sha256_file
from zoo.util.errors import UsageError

SMALL = small_preprocess()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(LEAST + 8):
        path = tmp_path / "mine" / f"class{number % 2}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = random.integers(0, 192, 3, np.uint8)  # unlike colours are told apart soon
        picture = Image.fromarray(colour + random.integers(0, 64, (8, 10, 3), np.uint8))
        picture.resize((50, 40)).save(path)
    return tmp_path / "mine"


def test_the_shipped_set_has_no_golden_photo_and_enough_crops() -> None:
    images = shipped()
    assert not set(images.digests) & bundled.golden_digests()
    assert images.digests == tuple(map(sha256_file, images.paths))
    assert images.crops >= LEAST
    pixels, judged = images.pixels(SMALL)
    assert pixels.shape == (images.crops, 32, 32, 3)
    assert len(judged) == len(images.paths)
    whole = [fit(open_photo(path), SMALL) for path in images.paths]
    assert np.array_equal(pixels[judged], whole)
    assert len(np.unique(pixels.reshape(len(pixels), -1), axis=0)) == images.crops
    assert "scikit-image" in images.name


def test_a_folder_is_taken_whole_and_named_by_its_contents(folder: Path) -> None:
    said: list[str] = []
    images = from_folder(folder, said.append)
    assert not said
    assert images.source == "folder"
    assert images.crops == len(images.paths) == LEAST + 8
    pixels, judged = images.pixels(SMALL)
    assert len(pixels) == LEAST + 8
    assert len(judged) == 16
    described = images.describe()
    assert (described.photos, described.crops) == (LEAST + 8, LEAST + 8)
    assert described.sha256 == images.digests
    assert str(folder) not in described.model_dump_json()  # what a record holds
    moved = folder.with_name("elsewhere")
    shutil.move(folder, moved)
    assert from_folder(moved, said.append).name == images.name
    next(moved.rglob("*.png")).unlink()
    assert from_folder(moved, said.append).name != images.name


def test_what_cannot_be_used_is_said_and_left_out(folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"no photo")
    cut = (folder / "class0" / "00.png").read_bytes()
    (folder / "cut.png").write_bytes(cut[: len(cut) // 2])
    shutil.copy(folder / "class0" / "00.png", folder / "copy.png")
    golden = bundled.golden_paths()[0]
    shutil.copy(golden, folder / golden.name)
    (folder / "notes.txt").write_text("not a photo, and not called one")
    (folder / "folder.jpg").mkdir()
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    said: list[str] = []
    images = from_folder(folder, said.append)
    assert images.crops == LEAST + 8
    text = "\n".join(said)
    assert len(said) == 6
    left_out = ("broken.jpg", "cut.png", "folder.jpg", "gone.jpg")
    for words in (*left_out, "is the same file as", "is a golden photo"):
        assert words in text


def test_too_few_are_refused(folder: Path, tmp_path: Path) -> None:
    for path in list(folder.rglob("*.png"))[: 8 + 1]:
        path.unlink()
    with raises_golden(UsageError, "photos/too-few", match=rf"\b{LEAST - 1}\b.*\b{LEAST}\b"):
        from_folder(folder, lambda _: None)
    with raises_golden(UsageError, "photos/no-folder"):
        from_folder(tmp_path / "nowhere", lambda _: None)


def test_of_very_many_some_are_taken_from_all_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.photos.calibration._MOST", 33)
    said: list[str] = []
    images = from_folder(folder, said.append)
    assert images.crops == 33
    assert "33" in said[0]
    assert {path.parent.name for path in images.paths} == {"class0", "class1"}
    images.paths[3].write_bytes(b"no photo")  # another takes its place
    other = from_folder(folder, said.append)
    assert other.crops == 33
    assert set(images.paths) - set(other.paths) == {images.paths[3]}


def test_a_set_goes_to_a_worker_and_back() -> None:
    images = shipped()
    assert CalibrationSet.model_validate_json(images.model_dump_json()) == images
