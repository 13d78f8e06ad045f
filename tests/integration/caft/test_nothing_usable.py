"""Data sets without a usable image leave nothing behind, and say why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.caft import Zoo, folder, identity, toy, write_cache
from support.goldens import assert_golden, raises_golden

from zoo.caft import FeatureCache, cache_features, train_head
from zoo.caft.card import Card, write_card
from zoo.caft.features import Pass
from zoo.caft.settings import Settings
from zoo.caft.writer import CacheWriter
from zoo.cli import caft
from zoo.util.errors import CacheError, DatasetError


def bad_photos(path: Path) -> Path:
    for kind in ("a", "b"):
        (path / kind).mkdir(parents=True)
        for number in range(3):
            (path / kind / f"{number}.jpg").write_bytes(b"none")
    (path / "b" / "gone.jpg").symlink_to("nowhere.jpg")
    return path


def files(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def test_a_pass_that_skips_everything_leaves_nothing(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad_photos(tmp_path / "bad")
    assert zoo("features bad --model toy -o new/c") == 30
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("skipped ") == 7
    assert_golden("caft/nothing_usable", printed.err.replace(str(tmp_path), "FOLDER"))
    assert not (tmp_path / "new").exists()
    folder(tmp_path / "good", classes=2, each=2)
    assert zoo("features good --model toy -o new/c") == 0
    assert len(FeatureCache(tmp_path / "new" / "c")) == 4


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    with pytest.raises(DatasetError):
        cache_features(bad_photos(tmp_path / "bad"), toy(), tmp_path / "c")
    assert (tmp_path / "c").is_dir()
    assert not list((tmp_path / "c").iterdir())


def test_a_cache_whose_images_are_all_bad_now_keeps_its_rows(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", classes=2, each=3)
    cache_features(data, toy(), tmp_path / "c")
    before = files(tmp_path / "c")
    originals = {photo: photo.read_bytes() for photo in data.rglob("*.png")}
    for photo in originals:
        photo.write_bytes(b"none")
    with pytest.raises(DatasetError):
        cache_features(data, toy(), tmp_path / "c")
    after = files(tmp_path / "c")
    after.pop("stamps.npy", None)
    before.pop("stamps.npy", None)
    assert after == before
    for photo, content in originals.items():
        photo.write_bytes(content)
    _, state = cache_features(data, toy(), tmp_path / "c")
    assert (state.found, state.images) == (6, 0)


def test_a_cache_of_no_samples_does_not_block_its_place(tmp_path: Path) -> None:
    """As passes of earlier versions left it, or one that was killed before its first batch."""
    (tmp_path / "c").mkdir()
    write_card(tmp_path / "c", Card(identity=identity(9), source="elsewhere", bad=3))
    data = folder(tmp_path / "data", classes=2, each=2)
    cache_features(data, toy(), tmp_path / "c")
    cache = FeatureCache(tmp_path / "c")
    assert (len(cache), cache.card.source) == (4, str(data))
    with pytest.raises(CacheError):
        cache_features(folder(tmp_path / "other"), toy(), tmp_path / "c")


def test_an_interrupt_before_the_first_row_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(state: Pass) -> None:
        raise KeyboardInterrupt

    bad_photos(tmp_path / "data")
    with pytest.raises(KeyboardInterrupt):
        cache_features(tmp_path / "data", toy(), tmp_path / "c", on_progress=interrupt)
    assert not (tmp_path / "c").exists()


def test_rows_of_another_process_are_never_removed(tmp_path: Path) -> None:
    """On a disk without locks, it may have written while this one found nothing usable."""
    rows = np.zeros((3, 8), np.float32)
    mine = CacheWriter(tmp_path / "c", identity(8), "")
    mine._unlock()
    write_cache(tmp_path / "c", rows, ["a", "b", "a"])
    mine.close(complete=False)
    assert len(FeatureCache(tmp_path / "c")) == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"These photos\nwere taken\nlast year\n"),
        ("empty.csv", b""),
        ("table.parquet", b"PAR1 none"),
        ("labels.json", b'{"a": 1}'),
        ("photo.png", b"\x89PNG\r\n\x1a\n none"),
    ],
)
def test_a_file_that_is_no_data_set_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    golden = f"caft/no_data_set_file_{name.partition('.')[0]}"
    with raises_golden(DatasetError, golden, {tmp_path: "FOLDER"}):
        cache_features(tmp_path / name, toy(), tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.fixture
def cache_and_head(tmp_path: Path) -> None:
    cache_features(folder(tmp_path / "good", classes=2, each=6), toy(), tmp_path / "c")
    head, _ = train_head(FeatureCache(tmp_path / "c"), Settings(solver="lbfgs"))
    head.save(tmp_path / "head.safetensors")


@pytest.mark.usefixtures("cache_and_head")
@pytest.mark.parametrize("command", ["predict --head head.safetensors", "similar c"])
def test_photos_of_which_none_is_usable_are_an_error(
    command: str, zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad_photos(tmp_path / "bad")
    assert zoo(f"{command} bad") == 30
    shown = capsys.readouterr()
    assert shown.out == ""
    assert_golden("caft/no_photo_usable", shown.err[shown.err.index("error: ") :])
    assert zoo(f"{command} bad good") == 0
    assert zoo(f"{command} bad bad/a/0.jpg good") == 12


@pytest.mark.usefixtures("cache_and_head")
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("map c -o out/m.html --photos 1", 2),
        ("map c -o out/m.html --photos 2", 2),
        ("map c -o out/m.html --seed -3", 2),
        ("map c -o out/m.html --seed 4294967296", 2),
        ("map c -o out/m.svg", 2),
        ("map nowhere -o out/m.html", 31),
        ("probe c --test 0", 2),
        ("probe c --test nan", 2),
        ("probe c --test 1", 2),
        ("probe c --seed -1", 2),
        ("export-features nowhere -o out/c.csv", 31),
        ("export-features c -o out/c.none", 2),
        ("train-head nowhere -o out/head.safetensors", 31),
        ("predict --head nowhere good -o out/p.csv", 32),
        ("duplicates nowhere -o out/d.csv", 31),
        ("run toy nothing.jpg -o out/r.npz", 12),
        ("features nowhere --model toy -o out/c --format csv", 30),
        ("features bad --model toy -o good/class0/0.png", 30),
        ("features good --model toy -o good/class0/0.png", 31),
        ("duplicates c -o good/class0/0.png/d.csv", 2),
    ],
)
def test_what_is_refused_makes_no_folder(
    arguments: str,
    status: int,
    zoo: Zoo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bad").mkdir()
    assert zoo(arguments) == status
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_an_empty_data_set_is_refused_before_an_engine_is_loaded(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: object) -> None:
        raise AssertionError("an engine was loaded")

    monkeypatch.setattr(caft, "_extractor", load)
    (tmp_path / "empty").mkdir()
    assert zoo("features empty --model toy -o c") == 30


@pytest.mark.usefixtures("cache_and_head")
def test_the_file_with_all_groups_is_named(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.repeat(np.eye(12, 8, dtype=np.float32) + np.eye(12, 8, -8, np.float32) * 2, 2, axis=0)
    rows[16:] += 0.5
    write_cache(Path("twins"), rows + np.arange(24)[:, None] // 2 * 0.01, ["a"] * 24)
    assert zoo("duplicates twins --at-least 0.9999999 -o d.csv") == 0
    shown = capsys.readouterr().out
    assert "d.csv lists all" in shown
    assert "FILE.csv" not in shown
