"""Heads that predict numbers or labels: what they learn, and labels that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.caft import TOY, Zoo, clusters, folder, toy, write_cache
from support.goldens import assert_golden

from zoo.caft import FeatureCache, Head, cache_features, train_head
from zoo.caft.files import SUMS
from zoo.caft.onnx_export import export_onnx
from zoo.caft.report_values import average_precision, f1_scores
from zoo.caft.settings import Settings
from zoo.caft.split import split_samples
from zoo.caft.targets_file import targets_of
from zoo.caft.task import TASKS, Task
from zoo.util.errors import DatasetError, HeadError, UsageError, ZooError

LBFGS = Settings(solver="lbfgs", weight_decay=1.0, val=0, epochs=30, patience=30)


@pytest.fixture
def rows() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path, rows: np.ndarray[Any, Any]) -> FeatureCache:
    return FeatureCache(write_cache(tmp_path / "c", rows, [None] * len(rows)))


def numbers(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    noise = np.random.default_rng(1).standard_normal(len(rows))
    return 1e4 + 300 * rows[:, 0] - 100 * rows[:, 1] + 30 * noise


def flags(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    noise = 0.3 * np.random.default_rng(1).standard_normal((len(rows), 3))
    return np.asarray(rows[:, :3] + noise > (0, 1, -1), np.int64)


def test_regression_is_ridge(cache: FeatureCache, rows: np.ndarray[Any, Any]) -> None:
    from sklearn.linear_model import Ridge

    y = numbers(rows)
    head, report = train_head(cache, LBFGS, task="regression", labels=y, names=["price"])
    targets = targets_of(cache, Task.REGRESSION, y)
    split = split_samples(cache, val=0, test=0.2, seed=0, targets=targets)
    mean, deviation = y[split.train].mean(), y[split.train].std()
    known = (rows[split.train] - head.mean) * head.scale
    ridge = Ridge(alpha=0.5).fit(known, (y[split.train] - mean) / deviation)
    expected = ridge.predict((rows - head.mean) * head.scale) * deviation + mean
    assert np.abs(head.outputs(rows)[:, 0] - expected).max() < 0.5
    (score,) = report.scores
    error = expected[split.test] - y[split.test]
    assert score.rmse == pytest.approx(np.sqrt(np.square(error).mean()), rel=1e-2)
    assert score.mae == pytest.approx(np.abs(error).mean(), rel=1e-2)
    assert score.mean_mae == pytest.approx(np.abs(y[split.test] - mean).mean())
    assert score.r2 is not None
    assert score.r2 > 0.95
    assert report.held_out == 40


@pytest.mark.parametrize("settings", [
    LBFGS,
    Settings(learning_rate=0.05, batch=32),
    Settings(kind="mlp", hidden=16, learning_rate=0.02, batch=32),
])  # fmt: skip
def test_both_tasks_are_learned_saved_and_exported(settings: Settings, tmp_path: Path) -> None:
    import onnx

    cache_features(folder(tmp_path / "data", each=12), toy(), tmp_path / "c")
    cache = FeatureCache(tmp_path / "c")
    plain = np.asarray(cache.plain, np.float64)
    plain = (plain - plain.mean(0)) / plain.std(0)
    given: dict[str, Any] = {
        "regression": np.stack([1e3 * plain[:, 0], 1e-4 * plain[:, 1]], 1),
        "multi-label": (plain[:, :3] > 0).astype(int),
    }
    for task, labels in given.items():
        head, report = train_head(cache, settings, task=task, labels=labels)
        assert report.trained_on + report.stopped_by + report.held_out == 36
        head.save(tmp_path / "h.safetensors")
        loaded = Head.load(tmp_path / "h.safetensors")
        assert loaded.card == head.card
        assert loaded.card.task is Task(task)
        assert np.array_equal(loaded.outputs(cache.plain), head.outputs(cache.plain))
        assert export_onnx(loaded, toy(), TOY, tmp_path / "both.onnx") < 1e-4
        model = onnx.load(str(tmp_path / "both.onnx"))
        assert [output.name for output in model.graph.output] == [TASKS[Task(task)].output]
        written = json.loads(report.to_json())
        assert written["labels"] == list(head.card.labels)


def test_scores_are_scikit_learns(cache: FeatureCache, rows: np.ndarray[Any, Any]) -> None:
    from sklearn.metrics import average_precision_score, f1_score

    random = np.random.default_rng(3)
    for _ in range(50):
        actual = random.random((30, 4)) < 0.4
        scores = random.integers(0, 6, (30, 4)).astype(np.float32)  # with ties
        for n in range(4):
            ours = average_precision(actual[:, n], scores[:, n])
            assert ours == pytest.approx(average_precision_score(actual[:, n], scores[:, n]))
        predicted = scores > 2
        theirs = f1_score(actual, predicted, average=None, zero_division=0)
        assert np.allclose(f1_scores(actual, predicted), theirs)
    head, report = train_head(cache, LBFGS, task="multi-label", labels=flags(rows))
    targets = targets_of(cache, Task.MULTI_LABEL, flags(rows))
    split = split_samples(cache, val=0, test=0.2, seed=0, targets=targets)
    actual = targets.values[split.test]
    outputs = head.probabilities(rows[split.test])
    assert report.mean_ap == pytest.approx(average_precision_score(actual, outputs))
    assert report.f1_micro == pytest.approx(f1_score(actual, outputs >= 0.5, average="micro"))
    assert report.f1_macro == pytest.approx(f1_score(actual, outputs >= 0.5, average="macro"))
    assert report.chance_ap == pytest.approx(actual.mean())
    assert report.mean_ap is not None
    assert report.mean_ap > 0.9
    names = [tuple(f"label{n}" for n in np.flatnonzero(row)) for row in outputs >= 0.5]
    assert head.predict_labels(rows[split.test]) == names


def test_a_rare_label_is_trained_and_held_out(
    cache: FeatureCache, rows: np.ndarray[Any, Any]
) -> None:
    sets = [["common"] if number % 2 else [] for number in range(len(rows))]
    sets[0], sets[1] = ["common", "rare"], ["rare"]
    _, report = train_head(cache, LBFGS, task="multi-label", labels=sets)
    assert report.not_held_out == report.not_trained == ()


def test_older_versions_refuse_a_head_that_does_not_classify(
    cache: FeatureCache, rows: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    from safetensors import safe_open

    head, _ = train_head(cache, LBFGS, task="regression", labels=numbers(rows))
    head.save(tmp_path / "h.safetensors")
    with safe_open(tmp_path / "h.safetensors", "numpy") as file:
        assert list(file.metadata()) == ["caft-zoo.task"]
    for wrong in (head.predict, head.probabilities, head.predict_labels):
        with pytest.raises(HeadError):
            wrong(rows)
    more, labels = clusters()
    classes = FeatureCache(write_cache(tmp_path / "d", more, labels))
    head, _ = train_head(classes, Settings(epochs=1))
    head.save(tmp_path / "h.safetensors")
    with safe_open(tmp_path / "h.safetensors", "numpy") as file:
        assert "task" not in json.loads(file.metadata()["caft-zoo"])
    assert Head.load(tmp_path / "h.safetensors").card.task is Task.CLASSIFICATION


HEADED = "name,price\n0.jpg,1\n1.jpg,2\n"
REFUSED: dict[str, tuple[str, str]] = {
    "nan": ("regression", "name,price\n0.jpg,1\n1.jpg,nan\n"),
    "infinite": ("regression", "name,price\n0.jpg,1\n1.jpg,1e400\n"),
    "words": ("regression", "name,price\n0.jpg,1\n1.jpg,dear\n"),
    "underscore": ("regression", "name,price\n0.jpg,1\n1.jpg,1_000\n"),
    "constant": ("regression", "name,price\n" + "".join(f"{n}.jpg,3\n" for n in range(9))),
    "too_close": ("regression", "name,t\n0.jpg,1700000000.1\n1.jpg,1700000000.2\n2.jpg,1700000001"),
    "one_image": ("regression", "name,price\n0.jpg,1\n"),
    "no_header": ("regression", "0.jpg,1\n1.jpg,2\n"),
    "no_column": ("regression", "name;price\n0.jpg;1\n"),
    "unnamed_column": ("regression", "name,a,\n0.jpg,1,2\n"),
    "same_columns": ("regression", "name,a,a\n0.jpg,1,2\n"),
    "other_names": ("regression", "name,price\nx/0.jpg,1\nx/1.jpg,2\n"),
    "fields": ("regression", HEADED + "2.jpg,1,5\n"),
    "hole": ("regression", "name,a,b\n0.jpg,1,2\n1.jpg,,2\n"),
    "twice": ("regression", HEADED + "0.jpg,7\n"),
    "empty": ("regression", ""),
    "quote": ("regression", HEADED + '2.jpg,"3\n'),
    "two": ("multi-label", "name,cat,dog\n0.jpg,1,0\n1.jpg,2,1\n"),
    "all": ("multi-label", "name,labels\n0.jpg,cat;dog\n1.jpg,cat\n"),
    "none": ("multi-label", "name,cat,dog\n0.jpg,1,0\n1.jpg,0,0\n"),
    "classes": ("classification", "name,a,b\n0.jpg,1,0\n1.jpg,2,1\n"),
    "one_class": ("classification", "name,class\n0.jpg,cat\n1.jpg,cat\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_labels_that_do_not_fit_are_refused(name: str, cache: FeatureCache, tmp_path: Path) -> None:
    task, text = REFUSED[name]
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ZooError) as raised:
        train_head(cache, LBFGS, task=task, labels=tmp_path / "labels.csv")
    assert raised.value.exit_code in (30, 32)
    assert_golden(f"caft/targets_{name}", raised.value)


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("regression", np.zeros(199)),
        ("regression", np.zeros((2, 2, 2))),
        ("regression", [True] * 200),
        ("regression", [float("nan")] * 200),
        ("regression", [[1.0], [1.0, 2.0]] * 100),
        ("regression", [[]] * 200),
        ("regression", [None] * 200),
        ("classification", np.linspace(0, 1, 200)),
        ("multi-label", np.full((200, 2), 0.5)),
        ("multi-label", [[]] * 200),
        ("multi-label", []),
        ("regression", None),
        ("multi-label", None),
    ],
)
def test_arrays_that_do_not_fit_are_refused(task: str, labels: Any, cache: FeatureCache) -> None:
    with pytest.raises(DatasetError) as raised:
        train_head(cache, LBFGS, task=task, labels=labels)
    assert raised.value.exit_code == 30


def test_a_caches_own_labels_may_be_numbers_or_lists(tmp_path: Path) -> None:
    rows, _ = clusters(classes=1, each=60)
    stars = write_cache(tmp_path / "stars", rows, [str(1 + number % 5) for number in range(60)])
    _, report = train_head(FeatureCache(stars), LBFGS, task="regression")
    assert report.scores[0].mean == pytest.approx(3, abs=0.3)
    lists = write_cache(tmp_path / "lists", rows, ["a;b", "b; c", None, "a"] * 15)
    _, labelled = train_head(FeatureCache(lists), LBFGS, task="multi-label")
    assert labelled.labels == ("a", "b", "c")
    assert labelled.unlabelled == 15
    with pytest.raises(DatasetError):
        train_head(FeatureCache(lists), LBFGS, task="regression")
    with pytest.raises(UsageError):
        train_head(FeatureCache(lists), LBFGS, task="segmentation")
    with pytest.raises(HeadError):
        train_head(FeatureCache(lists), Settings(solver="sklearn"), task="multi-label")


def test_the_commands(zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(tmp_path / "data", classes=2, each=12)
    assert zoo("features data --model toy -o c") == 0
    names = list(FeatureCache(tmp_path / "c").names())
    prices = [f"{name},{number % 7}.5" for number, name in enumerate(names)][:-1]
    (tmp_path / "p.csv").write_text("\n".join(["name,price", *prices, "gone.png,3"]))
    tags = [f"{name},{'red;' if number % 3 else ''}{'big' if number % 2 else ''}"
            for number, name in enumerate(names)]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(["name,labels", *tags]))
    capsys.readouterr()
    assert zoo("train-head c --task regression --labels p.csv --solver lbfgs -o p.safetensors") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("on 5 held-out images")
    assert "mean" in out[1]
    assert_golden("caft/labels-without-images", "\n".join(out[2:4]))
    assert "linear" in out[4]
    assert json.loads((tmp_path / "p.json").read_text())["scores"][0]["name"] == "price"
    assert (tmp_path / "p.png").read_bytes()[1:4] == b"PNG"
    photos = f"data/{names[0]} data/{names[1]}"
    assert zoo(f"predict --head p.safetensors {photos}") == 0
    assert capsys.readouterr().out.splitlines()[0].startswith(f"data/{names[0]}: price ")
    assert zoo(f"predict --json --head p.safetensors {photos}") == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert list(first["values"]) == ["price"]
    assert zoo("train-head c --task multi-label --labels t.csv -o t.safetensors") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("mAP ")
    assert "by chance" in out[0]
    assert "majority" in out[1]
    assert zoo(f"predict --json --head t.safetensors {photos}") == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert set(first["labels"]) <= {"red", "big"}
    assert set(first["probabilities"]) == {"red", "big"}
    assert zoo(f"predict --head t.safetensors {photos} none.png") == 12
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_logistic_regression_in_chunks_is_scikit_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = clusters(spread=2.0)
    cache = FeatureCache(write_cache(tmp_path / "c", rows, labels))
    settings = Settings(solver="sklearn", weight_decay=1.0)
    whole, _ = train_head(cache, settings)
    monkeypatch.setattr("zoo.caft.fit_sklearn._IN_MEMORY", 0)
    monkeypatch.setattr("zoo.caft.rows._CHUNK", 37)
    chunked, _ = train_head(cache, settings)
    assert np.abs(whole.probabilities(rows) - chunked.probabilities(rows)).max() < 0.01


def test_chunks_are_smaller_the_more_classes_there_are(
    cache: FeatureCache, rows: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.caft.rows import chunk_of

    assert 4 * 20_000 * chunk_of(20_000) <= 32 << 20
    assert chunk_of(10**12) == 1
    classes = [str(number % 5) for number in range(len(rows))]
    settings = Settings(batch=64, epochs=3)
    once, _ = train_head(cache, settings, labels=classes)
    monkeypatch.setattr("zoo.caft.rows._CHUNK", 7)
    often, _ = train_head(cache, settings, labels=classes)
    assert np.allclose(once.outputs(rows), often.outputs(rows), atol=1e-5)


def test_a_head_that_cannot_fit_in_memory_is_refused_first(cache: FeatureCache) -> None:
    labels = [str(number % 5) for number in range(200)]
    for hidden in (10**9, 10**30):
        with pytest.raises(HeadError) as raised:
            train_head(cache, Settings(kind="mlp", hidden=hidden), labels=labels)
        assert f"--hidden below {hidden}" in str(raised.value)


@pytest.mark.parametrize("tensor", ["mean", "scale", "0.weight", "0.bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_head_with_broken_weights_is_refused(
    tensor: str, value: float, cache: FeatureCache, tmp_path: Path
) -> None:
    import safetensors.numpy
    from safetensors import safe_open

    path = tmp_path / "h.safetensors"
    labels = [str(number % 5) for number in range(200)]
    train_head(cache, Settings(epochs=1), labels=labels)[0].save(path)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    tensors = safetensors.numpy.load_file(path)
    tensors[tensor].reshape(-1)[0] = value
    path.write_bytes(safetensors.numpy.save(tensors, metadata))
    with pytest.raises(HeadError) as raised:
        Head.load(path)
    assert tensor in str(raised.value)


def test_a_held_out_row_that_is_not_finite_is_named(tmp_path: Path) -> None:
    rows, labels = clusters()
    made = FeatureCache(write_cache(tmp_path / "ok", rows, labels))
    held_out = int(split_samples(made, val=0.1, test=0.2, seed=0).test[0])
    np.load(tmp_path / "ok" / "features.npy", mmap_mode="r+")[held_out, 0] = np.nan
    (tmp_path / "ok" / SUMS).unlink()  # as in caches of older versions
    broken = FeatureCache(tmp_path / "ok")
    with pytest.raises(HeadError) as raised:
        train_head(broken, Settings(epochs=1))
    assert f"{held_out}.jpg" in str(raised.value)
