"""Feature caches in pandas and torch, and what they show of themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from support.caft import folder, toy, write_cache
from support.goldens import raises_golden
from support.records import engine_entry, model_index

from zoo.caft import FeatureCache, cache_features, frames
from zoo.caft.map import Map
from zoo.schema.index import index_row
from zoo.util.errors import HeadError, MissingPackageError

LABELS = ["cat", "dog", None, "cat", "<b>"]


@pytest.fixture(params=[1, 3], ids=["plain", "views"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureCache:
    views = int(request.param)
    features = np.random.default_rng(0).normal(size=(len(LABELS) * views, 6)).astype(np.float32)
    return FeatureCache(write_cache(tmp_path / "cache", features, LABELS, views=views))


def test_pandas(cache: FeatureCache) -> None:
    frame = cache.to_pandas()
    assert list(frame.columns) == ["name", "view", "label", *(f"f{n}" for n in range(6))]
    assert frame["name"].tolist() == [name for name in cache.names() for _ in range(cache.views)]
    assert frame["view"].tolist() == list(range(cache.views)) * len(LABELS)
    labels = [label for label in LABELS for _ in range(cache.views)]
    assert [None if value != value else value for value in frame["label"]] == labels
    values = frame.filter(regex=r"^f\d+$").to_numpy()
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, cache.features)


def test_pandas_does_not_copy_the_features(cache: FeatureCache) -> None:
    assert np.shares_memory(cache.to_pandas()["f0"].to_numpy(), cache.features)


def test_torch(cache: FeatureCache) -> None:
    import torch

    features, labels = cache.to_torch().tensors
    assert (features.dtype, labels.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(features.numpy(), cache.features)
    np.testing.assert_array_equal(labels.numpy(), np.repeat(cache.labels, cache.views))
    features.add_(1)  # a copy, not the read-only file
    assert len(cache.to_torch("cpu")) == len(cache)


def test_what_does_not_fit_is_refused(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.caft.memory.available_memory", lambda: 10)
    with pytest.raises(HeadError, match="memory"):
        cache.to_torch()
    with pytest.raises(HeadError, match="memory"):
        cache.to_pandas()


def test_without_the_packages(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with raises_golden(MissingPackageError, "caft/no-pandas"):
        frames.to_pandas(cache)
    with raises_golden(MissingPackageError, "caft/no-torch-for-tensors"):
        frames.to_torch(cache)


def test_a_cache_shows_itself_in_a_line_and_a_table(cache: FeatureCache) -> None:
    assert repr(cache).startswith(f"<FeatureCache folder: {cache.folder}, images: 5")
    assert len(repr(cache)) < 400
    page = cache._repr_html_()
    assert page.count("<tr>") == len(cache._facts()) == page.count("</tr>")


def test_what_is_no_row_is_said(cache: FeatureCache) -> None:
    for wrong in ("a", [0, 1], np.ones(5, bool), None, 1.0):
        with pytest.raises(TypeError, match=type(wrong).__name__):
            cache[wrong]
    assert cache[np.int64(-1)][1] == cache[len(cache) - 1][1]


def test_what_a_pass_returns_is_short(tmp_path: Path) -> None:
    """A notebook shows it when the call is a cell's last line."""
    data = folder(tmp_path / "photos", classes=1, each=2)
    (data / "class0" / "torn.jpg").write_bytes(b"none")
    with toy() as extractor:
        card, state = cache_features(data, extractor, tmp_path / "c")
    assert repr(card).startswith("<Card images: 2, classes: 1, ")
    assert repr(card).endswith("skipped: 1>")
    assert repr(state).startswith("<Pass images: 3, skipped: 1, seconds: ")
    made = Map(
        points=np.zeros((2000, 2), np.float32), names=("a.jpg",) * 2000,
        labels=np.zeros(2000, np.int64), classes=("a",), title="2,000 photos",
    )  # fmt: skip
    row = index_row(model_index(engine_entry("sm86-rtx1.7-fp16")), b"")
    for shown in (card, state, card.identity, made, row):
        assert len(repr(shown)) < 400
        assert type(shown).__name__ in repr(shown)
        assert shown._repr_html_().count("<tr>") == len(shown._facts())
