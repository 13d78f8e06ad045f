"""Similar photos, near-duplicates and maps of a cache."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.caft import Zoo, clusters, folder, photo, toy, write_cache
from support.goldens import assert_golden
from support.records import blob

from zoo.caft import FeatureCache, cache_features, neighbours
from zoo.caft import map as tsne_map
from zoo.caft.map import Method, draw_map, make_map, write_map
from zoo.caft.neighbours import most_similar, near_duplicates
from zoo.cli import caft


def units(rows: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("block", [7, 2048])
def test_the_most_similar_are_those_of_brute_force(
    views: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    rows = np.random.default_rng(0).standard_normal((60 * views, 9)).astype(np.float32)
    cache = FeatureCache(write_cache(tmp_path / "c", rows, ["a", None] * 30, views=views))
    queries = np.random.default_rng(1).standard_normal((3, 9)).astype(np.float32)
    cosines = units(queries) @ units(rows[::views]).T
    for query, found in enumerate(most_similar(cache, queries, 5)):
        best = np.argsort(-cosines[query])[:5]
        assert [row.name for row in found] == [f"{number}.jpg" for number in best]
        assert [row.label for row in found] == [["a", None][number % 2] for number in best]
        np.testing.assert_allclose([row.similarity for row in found], cosines[query][best], 1e-5)
    assert len(most_similar(cache, queries, 1000)[0]) == 60


@pytest.mark.parametrize("width", [3, 200])  # fewer and more than the projection has
@pytest.mark.parametrize("at_least", [0.8, 0.97, 1.0])
@pytest.mark.parametrize("pairs", [0, 1 << 14])  # all compared at once, and one by one
def test_near_duplicates_are_the_components_of_brute_force(
    pairs: int, width: int, at_least: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy.sparse.csgraph import connected_components

    monkeypatch.setattr(neighbours, "_BLOCK", 16)
    monkeypatch.setattr(neighbours, "_PAIRS", pairs)
    random = np.random.default_rng(0)
    rows = np.maximum(random.standard_normal((150, width)), 0) + 0.1
    rows[50:100] = (
        rows[:50] * 3 + random.standard_normal((50, width)) * np.linspace(0, 0.4, 50)[:, None]
    )
    rows[100] = rows[0] * 7
    rows = rows.astype(np.float32)
    cache = FeatureCache(write_cache(tmp_path / "c", rows, [None] * 150))
    near = units(rows.astype(np.float64)) @ units(rows.astype(np.float64)).T >= at_least - 1e-6
    _, part = connected_components(near, directed=False)
    wanted = {tuple(np.flatnonzero(part == number)) for number in set(part)}
    groups = near_duplicates(cache, at_least)
    found = {tuple(int(row.name.partition(".")[0]) for row in group) for group in groups}
    assert found == {group for group in wanted if len(group) > 1}
    assert found
    assert [len(group) for group in groups] == sorted(map(len, groups), reverse=True)
    assert all(group[0].similarity == pytest.approx(1) for group in groups)


def test_every_photo_is_reported_as_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 16)
    rows = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    cache = FeatureCache(write_cache(tmp_path / "c", rows, [None] * 50))
    compared: list[int] = []
    near_duplicates(cache, 0.9, compared.append)
    assert compared == [16, 16, 16, 2]


def test_a_bad_photo_of_a_folder_is_skipped_and_one_that_is_named_is_an_error(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``zoo predict`` does."""
    cache_features(folder(tmp_path / "photos", classes=1, each=2), toy(), tmp_path / "c")
    torn = tmp_path / "photos" / "class0" / "torn.jpg"
    torn.write_bytes(b"\xff\xd8\xff none")
    assert zoo("similar c photos -k 1 --json") == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert_golden("caft/similar_skipped", said.err)
    assert zoo(f"similar c photos {shlex.quote(str(torn))} -k 1 --json") == 12


def test_features_of_zeros_are_like_no_others(tmp_path: Path) -> None:
    rows = np.zeros((6, 4), np.float32)
    rows[4:] = 1
    cache = FeatureCache(write_cache(tmp_path / "c", rows, [None] * 6))
    (group,) = near_duplicates(cache, 0.5)
    assert [row.name for row in group] == ["4.jpg", "5.jpg"]


def test_large_features_do_not_overflow(tmp_path: Path) -> None:
    rows = np.full((3, 4), 3e38, np.float32)
    cache = FeatureCache(write_cache(tmp_path / "c", rows, [None] * 3))
    (found,) = most_similar(cache, rows[:1], 3)
    assert [row.similarity for row in found] == pytest.approx([1, 1, 1])


def test_the_command_finds_the_photo_itself(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_features(folder(tmp_path / "photos", classes=2, each=3), toy(), tmp_path / "c")
    assert zoo("similar c photos/class1/2.png -k 2") == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "photos/class1/2.png:"
    assert second == "  1.000  class1/2.png  (class1)"
    assert re.fullmatch(r"  \d\.\d{3}  class\d/\d\.png  \(class\d\)", third)
    assert zoo("similar c photos --json -k 1") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["similar"][0]["photo"] for row in rows] == [
        row["photo"].removeprefix("photos/") for row in rows
    ]
    assert len(rows) == 6


@pytest.mark.parametrize(
    ("command", "status", "golden"),
    [
        ("similar none photos/class0/0.png", 31, "similar_no_cache"),
        ("similar c none.jpg photos/class0/0.png", 12, "similar_no_photo"),
        ("similar c empty", 30, "similar_empty_folder"),
        ("similar c photos/class0/0.png -k 0", 2, "similar_no_neighbours"),
        ("duplicates photos/class0/0.png", 31, "duplicates_of_a_file"),
        ("duplicates c --at-least 1.5", 2, "duplicates_above_one"),
        ("duplicates c -o out.txt", 2, "duplicates_suffix"),
        ("map c -o out.svg", 2, "map_suffix"),
        ("map two -o out.png", 31, "map_of_two"),
        ("map empty -o out.png", 31, "map_no_cache"),
    ],
)
def test_bad_input(
    command: str,
    status: int,
    golden: str,
    zoo: Zoo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache_features(folder(tmp_path / "photos", classes=2, each=3), toy(), tmp_path / "c")
    write_cache(tmp_path / "two", np.ones((2, 3), np.float32), [None, None])
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert zoo(command) == status
    assert_golden(f"caft/{golden}", capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_another_engine_is_refused_unless_accepted(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_features(folder(tmp_path / "photos", classes=1, each=2), toy(), tmp_path / "c")
    monkeypatch.setattr(caft, "_extractor", lambda *arguments: toy(engine=blob(b"another")))
    assert zoo("similar c photos/class0/0.png") == 31
    assert "--allow-other-engine" in capsys.readouterr().err
    assert zoo("similar c photos/class0/0.png --allow-other-engine") == 0


def test_duplicates_of_real_photos(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder(tmp_path / "photos", classes=2, each=3)
    with Image.open(data / "class0/0.png") as first:
        first.save(data / "class1/copy.jpg", quality=95)
    for number in range(3):
        photo(900 + number).save(data / f"class0/same{number}.png")
        (data / f"class1/same{number}.png").write_bytes(
            (data / f"class0/same{number}.png").read_bytes()
        )
    cache_features(data, toy(), tmp_path / "c")
    assert zoo("duplicates c --at-least 0.999999 -o groups.csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("c: 6 photos of 13 in 3 groups of near-duplicates; 3 groups")
    table = (tmp_path / "groups.csv").read_text().splitlines()
    assert table[0] == "group,photo,label,similarity_to_first"
    assert len(table) == 7
    assert zoo("duplicates c --json --at-least 0.9") == 0
    names = {
        row["photo"] for line in capsys.readouterr().out.splitlines() for row in json.loads(line)
    }
    assert {"class0/0.png", "class1/copy.jpg"} <= names


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    rows, labels = clusters(classes=4, each=30, width=60, spread=0.3)
    labels[5] = None
    return FeatureCache(write_cache(tmp_path_factory.mktemp("map") / "c", rows, labels))


@pytest.mark.parametrize("method", list(Method))
def test_a_map_puts_a_class_together(clustered: FeatureCache, method: Method) -> None:
    made = make_map(clustered, method, most=1000, seed=0)
    assert made.points.shape == (120, 2)
    far = np.linalg.norm(made.points[:, None] - made.points[None], axis=2)
    np.fill_diagonal(far, np.inf)
    nearest = far.argmin(axis=1)
    assert np.mean(made.labels[nearest] == made.labels) > 0.9


class Shown:
    """What a command shows while it works."""

    def __init__(self) -> None:
        self.done: dict[str, list[int]] = {}

    @contextmanager
    def __call__(
        self, task: str, noun: str = "", total: int | None = None
    ) -> Iterator[Callable[[int], object]]:
        self.done[f"{task} {total}"] = []
        yield self.done[f"{task} {total}"].append


def test_the_map_is_t_snes_and_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.manifold import TSNE

    monkeypatch.setattr(tsne_map, "_QUERIES", 8)
    monkeypatch.setattr(TSNE, "__init__", partialmethod(TSNE.__init__, max_iter=300))
    rows = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    shown = Shown()
    found = tsne_map._tsne(rows, 0, shown)
    start = rows[:, :2] / rows[:, 0].std() * 1e-4
    theirs = TSNE(perplexity=19 / 3, init=start, random_state=0)
    np.testing.assert_allclose(found, theirs.fit_transform(rows), rtol=1e-5)
    assert shown.done == {"neighbours 20": [8, 8, 4], "t-SNE 300": [50] * 6}


def test_components_of_a_sample_show_the_same(
    clustered: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.caft.map._FITTED", 4 * 60 * 80)  # bytes of 80 of the 120 photos
    made = make_map(clustered, Method.PCA, most=1000, seed=0)
    assert made.points.shape == (120, 2)
    far = np.linalg.norm(made.points[:, None] - made.points[None], axis=2)
    np.fill_diagonal(far, np.inf)
    assert np.mean(made.labels[far.argmin(axis=1)] == made.labels) > 0.9


def test_a_map_of_a_sample(clustered: FeatureCache) -> None:
    made = make_map(clustered, Method.PCA, most=40, seed=3)
    names = list(clustered.names())
    assert len(made.names) == len(set(made.names)) == 40
    for name, label in zip(made.names, made.labels, strict=True):
        assert clustered.labels[names.index(name)] == label
    assert made.title.startswith("40 of 120 photos")
    photos = np.concatenate([photos for _, _, photos in made.groups])
    assert sorted(photos.tolist()) == list(range(40))


def test_map_files(clustered: FeatureCache, tmp_path: Path) -> None:
    made = make_map(clustered, Method.PCA, most=1000, seed=0)
    draw_map(made, tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.size[0] > 500
    write_map(made, tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text()
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', page)
    data = json.loads(text)
    assert data["names"] == list(made.names)
    np.testing.assert_allclose(np.reshape(data["points"], (-1, 2)), made.points, atol=1e-3)
    assert not re.search(r"https?://", page)


def test_names_and_classes_can_not_end_the_script(tmp_path: Path) -> None:
    rows = np.eye(3, dtype=np.float32)
    labels: list[str | None] = ["</script><script>alert(1)</script>", "_$x^$", "MAP_DATA"]
    cache = FeatureCache(write_cache(tmp_path / "c", rows, labels))
    made = make_map(cache, Method.PCA, most=10, seed=0)
    write_map(made, tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text()
    assert page.count("<script") == page.count("</script>") == 2
    draw_map(made, tmp_path / "map.png")


def test_an_interrupt_leaves_no_file(
    zoo: Zoo, clustered: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "map.png").write_bytes(b"before")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", interrupted)
    assert zoo(f"map {clustered.folder} --method pca -o map.png") == 130
    monkeypatch.setattr("zoo.caft.neighbours._are_near", interrupted)
    assert zoo(f"duplicates {clustered.folder} --at-least 0.5 -o out.csv") == 130
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]
    assert (tmp_path / "map.png").read_bytes() == b"before"
