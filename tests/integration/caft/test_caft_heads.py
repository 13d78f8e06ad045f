"""Heads on cached features: they learn, they say how well, and they belong to one engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.caft import TOY, clusters, folder, hiding, record, toy, write_cache
from support.goldens import assert_golden

from zoo.caft import FeatureCache, Head, cache_features, train_head
from zoo.caft.knn import knn
from zoo.caft.onnx_export import OUTPUT, export_onnx
from zoo.caft.probe import probe
from zoo.caft.report import draw, wilson
from zoo.caft.rows import standardise
from zoo.caft.settings import Settings
from zoo.caft.split import split_by_image, split_samples
from zoo.util.errors import CacheError, HeadError, UsageError


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    """Four overlapping clusters, two views of each sample, in no order of class."""
    rows, labels = clusters()
    moved = rows + 0.1 * np.random.default_rng(2).standard_normal(rows.shape).astype(np.float32)
    both = np.stack([rows, moved], 1).reshape(-1, rows.shape[1])
    return FeatureCache(write_cache(tmp_path / "c", both, labels, views=2))


SETTINGS = [
    Settings(learning_rate=0.05, batch=64),
    Settings(solver="lbfgs"),
    Settings(solver="sklearn"),
    Settings(kind="mlp", hidden=32, learning_rate=0.02, batch=64),
    Settings(kind="mlp", hidden=32, solver="lbfgs", weight_decay=1.0),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: f"{one.kind}-{one.solver}")
def test_a_head_learns_and_is_judged_on_what_it_has_not_seen(
    settings: Settings, cache: FeatureCache, tmp_path: Path
) -> None:
    shown: list[Any] = []
    head, report = train_head(cache, settings, on_epoch=shown.append)
    assert report.held_out == 32
    assert report.accuracy > 0.9
    assert report.curve == tuple(shown)
    split = split_samples(cache, val=0.1, test=0.2, seed=0)
    named = head.predict(cache.plain[split.test])
    truth = [cache.label_names[number] for number in cache.labels[split.test]]
    assert sum(map(str.__eq__, named, truth)) == report.right == np.trace(report.confusion)
    assert np.sum(report.confusion, axis=1).tolist() == [8, 8, 8, 8]
    again, _ = train_head(cache, settings)
    assert np.array_equal(again.logits(cache.plain), head.logits(cache.plain))
    head.save(tmp_path / "head.safetensors")
    loaded = Head.load(tmp_path / "head.safetensors")
    assert loaded.card == head.card
    assert np.array_equal(loaded.logits(cache.plain), head.logits(cache.plain))
    draw(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes()[1:4] == b"PNG"
    assert json.loads(report.to_json())["right"] == report.right


def test_solvers_agree_where_the_problem_has_one_answer(cache: FeatureCache) -> None:
    by_torch, _ = train_head(
        cache, Settings(solver="lbfgs", weight_decay=1.0, val=0, epochs=30, patience=30)
    )
    by_sklearn, _ = train_head(cache, Settings(solver="sklearn", weight_decay=1.0, val=0))
    both = [head.probabilities(cache.plain) for head in (by_torch, by_sklearn)]
    assert np.abs(both[0] - both[1]).max() < 0.01


def test_early_stopping_keeps_the_best_epoch(cache: FeatureCache) -> None:
    settings = Settings(kind="mlp", learning_rate=0.3, epochs=60, patience=4)
    _, report = train_head(cache, settings)
    losses = [epoch.val_loss for epoch in report.curve]
    assert len(losses) < 60
    assert len(losses) - 1 - int(np.argmin(losses)) == 4


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": -1}, {"learning_rate": float("nan")}, {"dropout": 2}, {"weight_decay": -5},
     {"seed": -3}, {"seed": 1 << 70}],
)  # fmt: skip
def test_settings_out_of_range_are_rejected(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(UsageError) as raised:
        Settings(**wrong)
    assert raised.value.exit_code == 2
    assert f"{name}={value}: " in str(raised.value)
    assert_golden(f"caft/setting_{name}_{value}", raised.value)


def test_scikit_learn_says_how_many_it_learned_from(cache: FeatureCache) -> None:
    _, report = train_head(cache, Settings(solver="sklearn", epochs=1))
    assert report.trained_on + report.held_out == len(cache.labelled())


def test_other_settings_train_another_head(cache: FeatureCache) -> None:
    heads = [train_head(cache, Settings(seed=seed, epochs=3))[0] for seed in (0, 1)]
    assert not np.allclose(*(head.logits(cache.plain) for head in heads))


def test_labels_shuffled_among_images_teach_nothing(tmp_path: Path) -> None:
    rows, labels = clusters(each=60)
    shuffled = list(np.random.default_rng(3).permutation(labels))
    made = FeatureCache(write_cache(tmp_path / "c", rows, shuffled))
    _, report = train_head(made, Settings(solver="lbfgs"))
    assert report.interval[0] < 0.25 < report.interval[1]


def test_rows_that_do_not_fit_are_read_as_they_are_needed(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(batch=16, epochs=3)
    in_memory, _ = train_head(cache, settings)
    monkeypatch.setattr("zoo.caft.rows._IN_MEMORY", 0)
    monkeypatch.setattr("zoo.caft.rows._CHUNK", 37)
    from_disk, _ = train_head(cache, settings)
    assert np.array_equal(in_memory.logits(cache.plain), from_disk.logits(cache.plain))


@given(
    images=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=2, max_size=60),
    val=st.sampled_from([0.0, 0.1, 0.3]),
    test=st.sampled_from([0.0, 0.2, 0.5]),
    seed=st.integers(0, 5),
)
def test_an_image_is_on_one_side_only(
    images: list[tuple[int, int]], val: float, test: float, seed: int
) -> None:
    which = np.array([image for image, _ in images], np.uint64)
    labels = np.array([label for _, label in images])
    samples = np.arange(len(images)) * 3
    split = split_by_image(samples, labels, which, val=val, test=test, seed=seed)
    parts = (split.train, split.val, split.test)
    assert sorted(np.concatenate(parts)) == sorted(samples)
    sides = [set(which[part // 3]) for part in parts]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert len(split.train)


def test_scales_are_of_numpys_variances_shrunk_by_one_image(
    cache: FeatureCache,
) -> None:
    samples = np.array([1, 5, 9, 30])
    mean, scale = standardise(cache, samples)
    rows = np.asarray(cache.features[cache.rows_of(samples)])
    assert np.allclose(mean, rows.mean(0), atol=1e-5)
    variance = (len(samples) * rows.var(0) + rows.var(0).mean()) / (len(samples) + 1)
    assert np.allclose(1 / scale, np.sqrt(variance), atol=1e-5)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (98, 100, 0.9300, 0.9945)],
)
def test_the_interval_is_wilsons(right: int, count: int, low: float, high: float) -> None:
    assert wilson(right, count) == pytest.approx((low, high), abs=1e-4)


def test_the_knn_is_scikit_learns(cache: FeatureCache) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    random = np.random.default_rng(0)
    rows = random.standard_normal((300, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = random.integers(0, 4, 200)
    theirs = KNeighborsClassifier(
        7, metric="cosine", weights=lambda far: np.exp(-far / 0.07), algorithm="brute"
    ).fit(rows[:200], labels)
    for size in (200, 30, 5, 1):  # rows that are seen at a time
        parts = [
            (rows[start : min(start + size, 200)], labels[start : start + size])
            for start in range(0, 200, size)
        ]
        ours = knn(parts, rows[200:], neighbours=7)
        assert np.array_equal(ours, theirs.predict(rows[200:]))
    found = probe(cache)
    assert repr(found).splitlines() == found.lines
    assert found.knn_right / found.held_out > 0.9
    assert found.linear.accuracy > 0.9
    assert found.chance == 0.25
    fewer = probe(cache, knn_images=5)
    assert (fewer.knn_images, fewer.held_out) == (5, found.held_out)
    assert fewer.linear.accuracy == found.linear.accuracy


def test_one_class_is_no_task(tmp_path: Path) -> None:
    rows, labels = clusters()
    one = write_cache(tmp_path / "one", rows, ["cat"] * len(rows))
    with pytest.raises(CacheError) as raised:
        train_head(FeatureCache(one))
    assert "'cat'" in str(raised.value)
    assert_golden("caft/one_class", raised.value, hiding(raised.value, tmp_path))
    none = write_cache(tmp_path / "none", rows, [None] * len(rows))
    with pytest.raises(CacheError) as raised:
        probe(FeatureCache(none))
    assert_golden("caft/no_labels", raised.value, hiding(raised.value, tmp_path))
    some = write_cache(tmp_path / "some", rows, [None, *labels[1:]])
    with pytest.raises(UsageError) as raised:
        train_head(FeatureCache(some), Settings(val=0.5, test=0.5))
    assert_golden("caft/no_training_samples", raised.value, hiding(raised.value, tmp_path))
    assert train_head(FeatureCache(some))[1].held_out == 32
    bad = write_cache(tmp_path / "bad", rows, labels)
    np.load(bad / "features.npy", mmap_mode="r+")[:] = np.nan  # by somebody else's program
    with pytest.raises(HeadError) as raised:
        train_head(FeatureCache(bad))
    assert_golden("caft/not_finite", raised.value, hiding(raised.value, tmp_path))


def test_a_head_of_another_engine_is_refused(cache: FeatureCache) -> None:
    head, _ = train_head(cache, Settings(epochs=1))
    head.check(toy())
    inputs = record().inputs
    with pytest.raises(HeadError) as raised:
        head.check(toy(inputs=inputs.model_copy(update={"model": "other"})))
    assert_golden("caft/head_other_model", raised.value)
    moved = inputs.preprocess.model_copy(update={"crop": 1.0})
    with pytest.raises(HeadError) as raised:
        head.check(toy(inputs=inputs.model_copy(update={"preprocess": moved})))
    assert_golden("caft/head_other_preprocessing", raised.value)
    another = toy(engine={"sha256": "9" * 64, "size": 1})
    with pytest.raises(HeadError) as raised:
        head.check(another)
    assert "--allow-other-engine" in str(raised.value)
    assert_golden("caft/head_other_engine", raised.value, {toy().engine[:12]: "ENGINE"})
    head.check(another, allow_other_engine=True)


def test_what_is_no_head_is_said(cache: FeatureCache, tmp_path: Path) -> None:
    with pytest.raises(HeadError) as raised:
        Head.load(tmp_path / "none.safetensors")
    assert_golden("caft/no_head_file", raised.value, hiding(raised.value, tmp_path))
    path = tmp_path / "head.safetensors"
    train_head(cache, Settings(epochs=1))[0].save(path)
    whole = path.read_bytes()
    for broken in (b"", b"hello, world", whole[:50], whole[:-8]):
        path.write_bytes(broken)
        with pytest.raises(HeadError) as raised:
            Head.load(path)
        assert str(path) in str(raised.value)
    assert_golden("caft/not_a_head", raised.value, hiding(raised.value, tmp_path))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_backbone_and_head_are_one_onnx(kind: Any, tmp_path: Path) -> None:
    import onnxruntime

    cache_features(folder(tmp_path / "data", each=8), toy(), tmp_path / "c")
    head, _ = train_head(FeatureCache(tmp_path / "c"), Settings(kind=kind, epochs=5))
    path = tmp_path / "both.onnx"
    assert export_onnx(head, toy(), TOY, path) < 1e-4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    (found,) = session.run([OUTPUT], {"images": images})
    assert np.allclose(found, head.probabilities(toy()(images)), atol=1e-5)
    stated = session.get_modelmeta().custom_metadata_map
    assert json.loads(stated["labels"]) == list(head.card.labels)
    trt = record().inputs.toolchain.model_copy(update={"kind": "trt"})
    other = toy(inputs=record().inputs.model_copy(update={"toolchain": trt}))
    assert export_onnx(head, other, TOY, tmp_path / "portable.onnx") < 1e-4
    with pytest.raises(HeadError) as raised:
        export_onnx(head, other, None, tmp_path / "none.onnx")
    assert_golden("caft/head_without_onnx", raised.value, hiding(raised.value, tmp_path))
    assert not list(tmp_path.glob("none*"))
