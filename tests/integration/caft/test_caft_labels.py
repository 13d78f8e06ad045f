"""Labels are what they were: names or whole numbers, or none, and never cast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from support.caft import folder, hiding, photo, toy
from support.goldens import assert_golden, raises_golden

from zoo.caft import FeatureCache, cache_features
from zoo.caft.labels import LabelError, class_of
from zoo.util.errors import DatasetError

datasets.disable_progress_bars()


class Items(list[Any]):
    """A torch data set of pairs."""

    classes: tuple[str, ...] | None = None


def labels_of(path: Path) -> list[str | None]:
    made = FeatureCache(path)
    return [made.label_names[number] if number >= 0 else None for number in made.labels]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("cat", "cat"), (" cat ", "cat"), ("", None), ("-1", None), (-1, None), (None, None),
        (3, "3"), (np.int64(3), "3"), (np.array(3), "3"), (torch.tensor(3), "3"), ("v0.5", "v0.5"),
        (torch.tensor(-1), None), (True, "True"), (b"cat", "cat"),
    ],
)  # fmt: skip
def test_names_and_whole_numbers_are_classes(label: Any, name: str | None) -> None:
    assert class_of(label) == name


@pytest.mark.parametrize(
    "label",
    [0.5, 1.0, "0.5", b"1e-3", "0 1 1", "[1, 0]", '{"a": 1}',
     float("nan"), np.float32(2), torch.tensor(0.5), torch.tensor([0, 1.0]),
     np.array([1, 0]), [1], (1, 2), {"a": 1}],
)  # fmt: skip
def test_what_is_no_class_is_refused_in_every_pass(label: Any, tmp_path: Path) -> None:
    with pytest.raises(LabelError):
        class_of(label)
    data = Items([(photo(1), "cat"), (photo(2), label)])
    for _ in range(2):  # the second time, the cache has images
        with pytest.raises(LabelError) as raised:
            cache_features(data, toy(), tmp_path / "c", batch=1, workers=1)
        assert raised.value.exit_code == 30
        assert "item 1" in raised.value.message


def test_numbers_are_named_by_the_classes_also_of_a_subset(tmp_path: Path) -> None:
    data = Items([(photo(1), 0), (photo(2), -1), (photo(3), 1)])
    data.classes = ("ox", "cat")
    cache_features(torch.utils.data.Subset(data, [2, 1, 0]), toy(), tmp_path / "c")
    assert labels_of(tmp_path / "c") == ["cat", None, "ox"]
    data.append((photo(4), 2))
    with raises_golden(LabelError, "caft/not-one-of-the-2-classes"):
        cache_features(data, toy(), tmp_path / "d")


def test_a_list_and_a_folder_have_the_same_rule(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", classes=1, each=3)
    (data / "l.csv").write_text("class0/0.png,-1\nclass0/1.png,\nclass0/2.png,7\n")
    cache_features(data / "l.csv", toy(), tmp_path / "l")
    assert labels_of(tmp_path / "l") == [None, None, "7"]
    (data / "class0").rename(data / "-1")
    cache_features(data, toy(), tmp_path / "f")
    assert labels_of(tmp_path / "f") == [None] * 3


def table(label: Any, values: list[Any]) -> Any:
    rows = {"image": [photo(number) for number in range(len(values))], "label": values}
    kinds = {"image": datasets.Image(), "label": label}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


INTEGERS = datasets.Value("int64")


@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [
        (INTEGERS, [0, -1, None, 5], ["0", None, None, "5"]),
        (datasets.ClassLabel(names=["a", "b"]), [0, -1, None, 1], ["a", None, None, "b"]),
        (datasets.Value("string"), ["x", "", None, "y"], ["x", None, None, "y"]),
        (datasets.Value("float32"), [0.5, 1.0], None),
        (datasets.Sequence(INTEGERS), [[0], [0, 1]], None),
    ],
)
def test_columns_of_hugging_face(
    kind: Any, values: list[Any], names: list[str | None] | None, tmp_path: Path
) -> None:
    if names is None:
        with pytest.raises(LabelError, match=r"\blabel\b"):
            cache_features(table(kind, values), toy(), tmp_path / "c")
        return
    streamed = table(kind, values).to_iterable_dataset()
    for form in (table(kind, values), streamed, table(kind, values).with_format("torch")):
        out = tmp_path / f"c{id(form)}"
        cache_features(form, toy(), out)
        assert labels_of(out) == names
        expected = toy()([photo(number) for number in range(len(values))])
        assert np.allclose(FeatureCache(out).features, expected, atol=1e-6)


def test_the_image_column_is_chosen_by_name(tmp_path: Path) -> None:
    masks = [photo(number) for number in (8, 9)]
    rows = {"mask": masks, "image": [photo(1), photo(2)], "label": [0, 1], "fine": [3, 4]}
    kinds = {"mask": datasets.Image(), "image": datasets.Image(), "label": INTEGERS,
             "fine": INTEGERS}  # fmt: skip
    made = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    cache_features(made, toy(), tmp_path / "c")
    assert np.allclose(
        FeatureCache(tmp_path / "c").features, toy()([photo(1), photo(2)]), atol=1e-6
    )
    cache_features(made, toy(), tmp_path / "d", image="mask", label="fine")
    assert np.allclose(FeatureCache(tmp_path / "d").features, toy()(masks), atol=1e-6)
    assert labels_of(tmp_path / "d") == ["3", "4"]
    several = made.rename_column("image", "photo")
    with pytest.raises(DatasetError) as raised:
        cache_features(several, toy(), tmp_path / "e")
    assert_golden("caft/several_image_columns", raised.value, hiding(raised.value, tmp_path))
    splits = datasets.DatasetDict({"train": made, "test": made})
    with pytest.raises(DatasetError) as raised:
        cache_features(splits, toy(), tmp_path / "e")
    assert_golden("caft/dataset_dict", raised.value, hiding(raised.value, tmp_path))


def test_a_saved_set_of_several_splits_is_refused_without_one(tmp_path: Path) -> None:
    parts = {
        split: datasets.Dataset.from_dict({"image": [photo(n)]}).cast_column(
            "image", datasets.Image()
        )
        for n, split in enumerate(("test", "train"))
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "dd"))
    datasets.DatasetDict(test=parts["test"]).save_to_disk(str(tmp_path / "one"))
    with pytest.raises(DatasetError) as raised:
        cache_features(tmp_path / "dd", toy(), tmp_path / "c")
    assert_golden("caft/saved_splits", raised.value, hiding(raised.value, tmp_path))
    rows = {}
    for split in parts:
        cache_features(tmp_path / "dd", toy(), tmp_path / split, split=split)
        rows[split] = FeatureCache(tmp_path / split).features[0]
    assert not np.allclose(rows["test"], rows["train"])
    cache_features(tmp_path / "one", toy(), tmp_path / "c1")
    assert np.allclose(FeatureCache(tmp_path / "c1").features[0], rows["test"])
