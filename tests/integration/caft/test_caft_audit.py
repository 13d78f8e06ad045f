"""What an audit of feature caches found: damage that became a wrong row, lists and folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.caft import folder, photo, toy

from zoo.caft import FeatureCache, cache_features
from zoo.caft.card import read_card, write_card
from zoo.caft.sources import open_source
from zoo.cli.support import output_file
from zoo.util.errors import CacheError, DatasetError, UsageError


def made(tmp_path: Path) -> tuple[Path, Path]:
    data, cache = folder(tmp_path / "data"), tmp_path / "cache"
    cache_features(data, toy(), cache)
    return data, cache


def test_a_damaged_label_is_never_taken_over(tmp_path: Path) -> None:
    data, cache = made(tmp_path)
    labels = bytearray((cache / "labels.npy").read_bytes())
    labels[128] ^= 1
    (cache / "labels.npy").write_bytes(labels)
    photo(999).save(data / "class2" / "z.png")
    with pytest.raises(CacheError) as refused:
        cache_features(data, toy(), cache)
    assert "labels.npy" in refused.value.message


@pytest.mark.parametrize("change", [{"labels": ("class1", "class0", "class2")}, {"samples": 6}])
def test_a_changed_card_is_never_taken_over(tmp_path: Path, change: dict[str, object]) -> None:
    data, cache = made(tmp_path)
    card = read_card(cache)
    assert card is not None
    write_card(cache, card.model_copy(update=change))
    with pytest.raises(CacheError) as refused:
        cache_features(data, toy(), cache)
    assert "card.json" in refused.value.message


def test_folders_whose_names_are_no_text_stay_apart(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number, name in enumerate((b"\xc4pfel", b"\xd6pfel")):
        path = Path(os.fsdecode(os.fsencode(data) + b"/" + name))
        path.mkdir(parents=True)
        photo(number).save(path / "0.png")
    cache_features(data, toy(), tmp_path / "cache")
    assert FeatureCache(tmp_path / "cache").label_names == ("\\xc4pfel", "\\xd6pfel")


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "annotations"), ("train2017", "val2017"), ("train_set", "val_set"),
        ("Training", "holdout"), ("train", "test", "unlabeled"),
    ],
)  # fmt: skip
def test_splits_beside_other_folders_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name / "cat").mkdir(parents=True)
        photo(1).save(tmp_path / name / "cat" / "0.png")
    with pytest.raises(DatasetError) as refused:
        open_source(tmp_path)
    assert refused.value.hint is not None
    assert "--split" in refused.value.hint


@pytest.mark.parametrize("names", [("train", "plane"), ("test", "control"), ("cat", "dog")])
def test_classes_that_look_like_one_split(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        photo(1).save(tmp_path / name / "0.png")
    assert {sample.label for sample in open_source(tmp_path)} == set(names)


@pytest.mark.parametrize("text", ['a.png,cat\n"b.png,dog\nc.png,cat\n"d.png,dog\n',
                                  'a.png,cat\n"b.png,dog\nc.png,cat\n',
                                  "x" * 200_000 + ",cat\n"])  # fmt: skip
def test_a_list_with_a_stray_quote_loses_nothing_silently(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DatasetError) as refused:
        list(open_source(tmp_path / "list.csv"))
    assert "list.csv" in refused.value.message


def test_a_nul_in_a_list_is_one_bad_photo_in_every_pass(tmp_path: Path) -> None:
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("a.png,cat\nx\0y.png,dog\n")
    for _ in range(2):
        card, _ = cache_features(tmp_path / "list.csv", toy(), tmp_path / "cache")
        assert (card.samples, card.bad) == (1, 1)


def test_a_link_to_itself_costs_nothing_else(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    (data / "class0" / "me").symlink_to("me")
    card, _ = cache_features(data, toy(), tmp_path / "cache")
    assert card.samples == 15


def test_output_over_a_file_of_a_cache_or_a_device_is_refused(tmp_path: Path) -> None:
    _, cache = made(tmp_path)
    for path in (cache / "features.npy", cache / "head.safetensors", Path("/dev/null")):
        with pytest.raises(UsageError):
            output_file(str(path))
    assert FeatureCache(cache).features.shape == (15, 8)
