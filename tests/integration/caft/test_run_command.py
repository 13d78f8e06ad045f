"""``zoo run``: named rows, nothing overwritten, all or nothing; and tables beside a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.caft import Zoo, folder, photo, toy
from support.goldens import assert_golden

from zoo.caft import FeatureCache
from zoo.caft.tables import FORMATS, TableFormat


@pytest.fixture(autouse=True)
def photos(tmp_path: Path) -> None:
    folder(tmp_path / "photos", classes=2, each=2)


def test_one_photo(zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo("run toy photos/class0/1.png") == 0
    assert capsys.readouterr().out == "1.toy.npy: features (1, 8), float32\n"
    features = np.load(tmp_path / "1.toy.npy")
    expected = toy()([tmp_path / "photos/class0/1.png"])
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_several_photos_have_names(zoo: Zoo, tmp_path: Path) -> None:
    names = ["photos/class1/0.png", "photos/class0/0.png", "photos/class1/0.png"]
    assert zoo(f"run toy {' '.join(names)}") == 0
    with np.load(tmp_path / "features.toy.npz") as stored:
        assert stored["names"].tolist() == names
        np.testing.assert_allclose(
            stored["features"], toy()([tmp_path / name for name in names]), atol=1e-6
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.toy.npz", "photos"]


def test_a_folder_and_an_array_say_which_row_is_which(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo("run toy photos -o rows.npy") == 0
    assert capsys.readouterr().out.splitlines() == [
        "rows.npy: features (4, 8), float32",
        "  row 0: photos/class0/0.png",
        "  row 1: photos/class0/1.png",
        "  row 2: photos/class1/0.png",
        "  row 3: photos/class1/1.png",
    ]


@pytest.mark.parametrize("name", ["1.toy.npy", "features.toy.npz"])
def test_nothing_is_overwritten(
    name: str, zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = "photos/class0/1.png" + " photos/class1/1.png" * name.endswith("z")
    (tmp_path / name).write_bytes(b"before")
    for command in (f"run toy {photos}", f"run toy {photos} -o {name}"):
        assert zoo(command) == 2
        assert (tmp_path / name).read_bytes() == b"before"
        assert "--overwrite" in capsys.readouterr().err
    assert zoo(f"run toy {photos} --overwrite") == 0
    assert (tmp_path / name).read_bytes() != b"before"


@pytest.mark.parametrize(
    ("arguments", "status", "golden"),
    [
        ("none.jpg", 12, "run_no_photo"),
        ("photos torn.jpg", 12, "run_torn_photo"),
        ("empty", 30, "run_empty_folder"),
        ("photos -o out.xlsx", 2, "run_suffix"),
    ],
)
def test_a_bad_photo_or_name_writes_nothing(
    arguments: str,
    status: int,
    golden: str,
    zoo: Zoo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff none")
    (tmp_path / "empty").mkdir()
    assert zoo(f"run toy {arguments}") == status
    assert_golden(f"caft/{golden}", capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "photos", "torn.jpg"]


def test_an_interrupt_leaves_nothing(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    assert zoo("run toy photos/class0/0.png") == 130
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("kind", list(TableFormat))
def test_a_pass_writes_a_table_beside_its_cache(
    kind: TableFormat, zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo(f"features photos --model toy -o out/c --format {kind}") == 0
    table = tmp_path / "out" / f"c{FORMATS[kind].suffix}"
    assert table.stat().st_size > 4 * 8 * 4
    assert capsys.readouterr().out.splitlines()[-1] == f"out/c{table.suffix}: 4 rows"
    assert len(FeatureCache(tmp_path / "out/c")) == 4
    photo(5).save(tmp_path / "photos/class0/9.png")
    before = table.stat().st_size
    assert zoo(f"features photos --model toy -o out/c --format {kind}") == 0  # follows the cache
    assert table.stat().st_size > before or kind is TableFormat.WEBDATASET


def test_a_folder_in_the_place_of_a_table_is_found_before_the_pass(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.csv").mkdir()
    assert zoo("features photos --model toy -o c --format csv") == 2
    assert "c.csv" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
