"""Arguments of the functions of Python's users that can't be right are refused before anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.caft import folder, toy

from zoo.caft import FeatureCache, cache_features
from zoo.caft.settings import Settings
from zoo.util.errors import UsageError


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"batch": 0}, r"batch=0: it is a whole number, at least 1"),
        ({"batch": "4"}, r"batch='4': it is a whole number"),
        ({"workers": 1.5}, r"workers=1\.5: it is a whole number"),
        ({"augment": -1}, r"augment=-1: .* at least 0 and at most 1,000"),
        ({"augment": 1001}, r"augment=1001: .* at most 1,000"),
        ({"seed": "a"}, r"seed='a': it is a whole number, at least -9,223,372"),
        ({"seed": 10**5000}, r"seed=an integer of thousands of digits: it is a whole number"),
        ({"decode": np.array(["auto", "fast"])}, r"decode=array.*: it is auto, pillow"),
        ({"on_progress": 3}, r"on_progress=3: it is a function"),
        ({"on_bad": None}, r"on_bad=None: it is a function"),
        ({"folder": None}, r"folder=None: it is a path"),
        ({"folder": "a\0b"}, r"folder='a.x00b': it is a path"),
        ({"storage": ["fp16"]}, r"storage=\['fp16'\]: it is fp32 or fp16"),
        ({"decode": None}, r"decode=None: it is auto, pillow, gpu or fast"),
        ({"exif": True}, r"exif=True: it is ignore or apply"),
        ({"cluster": "tcp://host:8786"}, r"cluster='tcp://host:8786': .*Workforce"),
        ({"extractor": "resnet50"}, r"extractor='resnet50': it is what zoo\.load returns"),
    ],
)
def test_a_pass_refuses_them(given: dict[str, Any], reason: str, tmp_path: Path) -> None:
    data = folder(tmp_path / "data", classes=1, each=2)
    with pytest.raises(UsageError, match=reason):
        cache_features(**{"data": data, "extractor": toy(), "folder": tmp_path / "cache", **given})
    assert not (tmp_path / "cache").exists()


def test_integers_of_numpy_are_whole_numbers(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", classes=1, each=2)
    numbers: dict[str, Any] = {
        name: np.int64(1) for name in ("batch", "workers", "augment", "seed")
    }
    card, _ = cache_features(data, toy(), tmp_path / "cache", **numbers)
    assert (card.samples, card.identity.augmentation.count) == (2, 1)


def test_settings_of_numpy_are_stored_as_python_has_them() -> None:
    settings = Settings(seed=np.int64(3), hidden=np.int16(512))  # type: ignore[arg-type]
    assert (type(settings.seed), type(settings.hidden)) == (int, int)


def test_batches_of_a_cache_refuse_them(tmp_path: Path) -> None:
    cache_features(folder(tmp_path / "data", classes=1, each=2), toy(), tmp_path / "cache")
    cache = FeatureCache(tmp_path / "cache")
    wrong: list[dict[str, Any]] = [
        {"size": 2.5}, {"size": 0}, {"size": 1, "seed": -1}, {"size": 1, "seed": "x"},
    ]  # fmt: skip
    for given in wrong:
        with pytest.raises(UsageError, match="it is a whole number"):
            cache.batches(**given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"epochs": 0}, "epochs=0: it is a whole number, at least 1"),
        ({"batch": "8"}, "batch='8': it is a whole number, at least 1"),
        ({"hidden": -1}, "hidden=-1: it is a whole number, at least 1"),
        ({"patience": 1.5}, "patience=1.5: it is a whole number, at least 1"),
        ({"seed": -1}, "seed=-1: it is a whole number, at least 0"),
        ({"kind": "deep"}, "kind='deep': it is linear or mlp"),
        ({"solver": "sgd"}, "solver='sgd': it is adamw, lbfgs or sklearn"),
        ({"learning_rate": "0.1"}, "learning_rate='0.1': it is a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: it is a number above 0"),
        ({"weight_decay": float("inf")}, "weight_decay=inf: it is a number of at least 0"),
        ({"dropout": 1}, "dropout=1: it is a number of at least 0 and below 1"),
        ({"learning_rate": 10**400}, "learning_rate=1000*…: it is a number above 0"),
        ({"val": "x"}, "val='x': it is a number$"),
    ],
)
def test_settings_of_a_head_refuse_them(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Settings(**given)
