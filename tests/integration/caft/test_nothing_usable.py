"""Data sets without a usable image leave nothing behind, and say why."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.caft import folder, identity, toy, write_cache
from support.goldens import assert_golden, raises_golden

from zoo.caft import FeatureCache, cache_features
from zoo.caft.card import Card, write_card
from zoo.caft.features import Pass
from zoo.caft.writer import CacheWriter
from zoo.cli import caft, main
from zoo.util.errors import CacheError, DatasetError

Zoo = Callable[[str], int]


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zoo:
    """Runs ``zoo`` in this process and in a folder of its own, with a tiny engine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(caft, "_extractor", lambda *arguments: toy())

    def run(arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["zoo", *shlex.split(arguments)])
        return main.main()

    return run


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
