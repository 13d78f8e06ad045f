"""``zoo predict`` of folders and into files, and the lists that training writes."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from support.caft import Zoo, clusters, folder, photo, toy, write_cache
from support.goldens import assert_golden

from zoo.caft import FeatureCache, cache_features, train_head
from zoo.caft.head import Head
from zoo.caft.scores import class_scores, score_lines
from zoo.caft.settings import Settings


@pytest.fixture
def head(tmp_path: Path) -> Head:
    data = folder(tmp_path / "photos", classes=2, each=6)
    cache_features(data, toy(), tmp_path / "c")
    made, _ = train_head(FeatureCache(tmp_path / "c"), Settings(solver="lbfgs"))
    made.save(tmp_path / "head.safetensors")
    return made


def without_scores(text: str) -> str:
    """Leaves out how many are right: training rounds differently from one machine to another."""
    return "".join(line for line in text.splitlines(keepends=True) if " right" not in line)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_into_a_csv(
    zoo: Zoo, head: Head, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos/class0/torn.jpg").write_bytes(b"\xff\xd8\xff none")
    (tmp_path / "photos/class1/notes.txt").write_text("none")
    photo(7).save(tmp_path / "photos/top.png")
    assert zoo("predict --head head.safetensors photos -o out.csv") == 0
    shown = capsys.readouterr()
    assert shown.out == "out.csv: 13 photos, 1 skipped\n"
    assert " 12 " in shown.err
    assert_golden("caft/predict_folder", without_scores(shown.err))
    rows = rows_of(tmp_path / "out.csv")
    names = [
        *(f"photos/class{kind}/{number}.png" for kind in range(2) for number in range(6)),
        "photos/top.png",
    ]
    assert [row["photo"] for row in rows] == names
    assert [row["actual"] for row in rows] == ["class0"] * 6 + ["class1"] * 6 + [""]
    features = toy()([tmp_path / name for name in names])
    probabilities = [[float(row[f"p({name})"]) for name in head.card.labels] for row in rows]
    np.testing.assert_allclose(probabilities, head.probabilities(features), atol=1e-5)
    assert [row["predicted"] for row in rows] == head.predict(features)
    assert [float(row["probability"]) for row in rows] == [max(row) for row in probabilities]


@pytest.mark.usefixtures("head")
def test_a_folder_into_json_lines(zoo: Zoo, tmp_path: Path) -> None:
    assert zoo("predict --head head.safetensors photos photos/class0/1.png -o out.jsonl") == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == 13
    assert set(rows[0]["classes"]) == {"class0", "class1"}
    assert (rows[12]["photo"], rows[1]["photo"]) == ("photos/class0/1.png",) * 2
    assert rows[12]["classes"] == pytest.approx(rows[1]["classes"], abs=1e-5)


@pytest.mark.usefixtures("head")
@pytest.mark.parametrize(
    ("arguments", "status", "golden"),
    [
        ("empty -o out.csv", 30, "predict_empty_folder"),
        ("torn -o out.csv", 30, "predict_nothing_usable"),
        ("photos -o out.xlsx", 2, "predict_suffix"),
        ("photos -o c/out.csv", 2, "predict_into_a_cache"),
        ("photos none.jpg -o out.csv", 12, "predict_one_missing"),
    ],
)
def test_bad_input(
    arguments: str,
    status: int,
    golden: str,
    zoo: Zoo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("empty", "torn"):
        (tmp_path / name).mkdir()
    (tmp_path / "torn/a.jpg").write_bytes(b"\xff\xd8\xff none")
    assert zoo(f"predict --head head.safetensors {arguments}") == status
    assert_golden(f"caft/{golden}", without_scores(capsys.readouterr().err))
    assert (tmp_path / "out.csv").exists() == (golden == "predict_one_missing")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.usefixtures("head")
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_interrupt_leaves_what_was_there(
    suffix: str, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the second batch is predicted."""
    calls = []

    def interrupted(self: Head, features: object) -> object:
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return outputs(self, features)  # type: ignore[arg-type]

    outputs = Head.outputs
    monkeypatch.setattr(Head, "outputs", interrupted)
    folder(tmp_path / "many", classes=1, each=40)
    (tmp_path / f"out.{suffix}").write_text("before")
    assert zoo(f"predict --head head.safetensors many -o out.{suffix}") == 130
    assert len(calls) == 2
    assert (tmp_path / f"out.{suffix}").read_text() == "before"
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.usefixtures("head")
def test_a_name_that_is_not_unicode(zoo: Zoo, tmp_path: Path) -> None:
    photo(1).save(os.fsencode(tmp_path) + b"/photos/class0/\xff.png")
    assert zoo("predict --head head.safetensors photos/class0 -o out.csv") == 0
    assert "photos/class0/\\udcff.png" in [row["photo"] for row in rows_of(tmp_path / "out.csv")]


def test_training_lists_scores_and_wrong_photos(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, labels = clusters(classes=3, each=40, spread=2.5)
    write_cache(tmp_path / "c", rows, labels)
    assert zoo("train-head c -o h.safetensors --solver lbfgs --no-plot --test 0.5") == 0
    lines = capsys.readouterr().out.splitlines()
    wrong, scores = rows_of(tmp_path / "h.wrong.csv"), rows_of(tmp_path / "h.classes.csv")
    report = json.loads((tmp_path / "h.json").read_text())
    confusion = np.array(report["confusion"])
    assert len(wrong) == confusion.sum() - np.trace(confusion) > 0
    assert lines[-1] == f"h.wrong.csv: {len(wrong)} images wrong"
    head = Head.load(tmp_path / "h.safetensors")
    cache = FeatureCache(tmp_path / "c")
    names = list(cache.names())
    sure = [float(row["probability"]) for row in wrong]
    assert sure == sorted(sure, reverse=True)
    for row in wrong:
        place = names.index(row["photo"])
        probabilities = head.probabilities(cache.plain[place : place + 1])[0]
        assert row["actual"] == cache.label_names[cache.labels[place]] != row["predicted"]
        assert row["predicted"] == head.card.labels[probabilities.argmax()]
        assert float(row["probability"]) == pytest.approx(probabilities.max(), abs=1e-5)
    for place, row in enumerate(scores):
        assert row["class"] == report["labels"][place]
        assert float(row["recall"]) == pytest.approx(
            confusion[place, place] / confusion[place].sum(), abs=1e-5
        )
        assert float(row["precision"]) == pytest.approx(
            confusion[place, place] / confusion[:, place].sum(), abs=1e-5
        )


def test_scores_agree_with_scikit_learn() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    random = np.random.default_rng(0)
    actual, guess = random.integers(0, 4, 200), random.integers(0, 4, 200)
    pairs, numbers = np.unique(np.stack([actual, guess], 1), axis=0, return_counts=True)
    cells = [(int(a), int(b), int(n)) for (a, b), n in zip(pairs, numbers, strict=True)]
    scores = class_scores(["a", "b", "c", "d"], cells)
    precision, recall, f1, images = precision_recall_fscore_support(actual, guess)
    for place, score in enumerate(scores):
        assert score.precision == pytest.approx(precision[place])
        assert score.recall == pytest.approx(recall[place])
        assert score.f1 == pytest.approx(f1[place])
        assert score.images == images[place]


def test_a_class_without_images_has_no_score() -> None:
    (there, empty) = class_scores(["there", "empty"], [(0, 0, 3)])
    assert (there.precision, there.recall, there.f1) == (1, 1, 1)
    assert (empty.precision, empty.recall, empty.f1) == (None, None, None)
    assert score_lines([there, empty]) == ()
