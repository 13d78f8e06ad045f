"""Names, labels and reasons may be any text, also what UTF-8 can't hold; the cache stays sound."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.caft import folder, photo, toy

from zoo.caft import FeatureCache, cache_features
from zoo.caft.card import read_card
from zoo.caft.labels import LabelError
from zoo.caft.packing import entry_of, pack
from zoo.caft.sample import Item, Sample
from zoo.caft.sources import open_source
from zoo.caft.wire import InFile, Sent, message
from zoo.util.errors import CacheError, DatasetError, RunError, UsageError


def sample(number: int, **changes: Any) -> Sample:
    given = {"name": f"{number}.png", "label": "a", "read": lambda: photo(number)}
    return Sample(**{**given, **changes})


def failing(error: Exception) -> Callable[[], Any]:
    def read() -> Any:
        raise error

    return read


@pytest.mark.parametrize(
    "error", [OSError("\n"), OSError(" "), OSError(), RunError(""), ValueError(), OSError("\udc80")]
)
def test_an_image_that_fails_without_a_reason_leaves_the_cache_readable(
    error: Exception, tmp_path: Path
) -> None:
    samples = [sample(number) for number in range(3)]
    cache_features(samples, toy(), tmp_path / "cache")
    reasons: list[str] = []
    for _ in range(2):
        _, state = cache_features(
            [*samples, sample(3, read=failing(error))], toy(), tmp_path / "cache",
            on_bad=lambda name, reason: reasons.append(reason),
        )  # fmt: skip
        assert (state.bad, state.found) == (1, 3)
        assert len(FeatureCache(tmp_path / "cache")) == 3
    assert all(reason.strip() for reason in reasons)
    _, state = cache_features([*samples, sample(3)], toy(), tmp_path / "cache")
    assert (state.bad, len(FeatureCache(tmp_path / "cache"))) == (0, 4)


@pytest.mark.parametrize("name", [b"ds\xff", b"\xe9\xff"])
def test_a_data_set_may_have_any_name(name: bytes, tmp_path: Path) -> None:
    data = folder(tmp_path / os.fsdecode(name), classes=1, each=2)
    for _ in range(2):
        cache_features(data, toy(), tmp_path / "cache")
    card = read_card(tmp_path / "cache")
    assert card is not None
    assert card.source.encode().decode() == card.source
    assert "\\udcff" in card.source
    other = folder(tmp_path / os.fsdecode(name + b"\xfe"), classes=1, each=2)
    with pytest.raises(CacheError, match="not of"):
        cache_features(other, toy(), tmp_path / "cache")


def test_labels_are_what_a_data_set_has(tmp_path: Path) -> None:
    given = ["a", "\udcff", "\ud800", " b ", "", " ", "-1", 5, b"c", np.int64(7), True, None]
    samples = [sample(number, label=label) for number, label in enumerate(given)]
    for _ in range(2):
        cache_features(samples, toy(), tmp_path / "cache")
    cache = FeatureCache(tmp_path / "cache")
    names = [None if number < 0 else cache.card.labels[number] for number in cache.labels]
    assert names == ["a", "\\udcff", "\\ud800", "b", None, None, None, "5", "c", "7", "True", None]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"label": ["x"]}, LabelError), ({"label": 0.5}, LabelError), ({"name": 7}, DatasetError),
        ({"name": None}, DatasetError), ({"name": Path("a")}, DatasetError),
        ({"read": photo(1)}, DatasetError),
    ],
)  # fmt: skip
def test_samples_of_other_types_are_named(
    changes: dict[str, Any], error: type[DatasetError], tmp_path: Path
) -> None:
    with pytest.raises(error):
        cache_features([sample(0), sample(1, **changes)], toy(), tmp_path / "cache")


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": 0}, {"batch": -1}, {"workers": 0}, {"workers": -2}, {"decode": "nope"},
        {"storage": "int8"}, {"exif": "x"}, {"batch": 1.5},
    ],
)  # fmt: skip
def test_other_arguments_are_refused_before_anything_is_written(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    (name,) = changes
    with pytest.raises(UsageError, match=name):
        cache_features([sample(0)], toy(), tmp_path / "cache", **changes)
    assert not (tmp_path / "cache").exists()


def test_messages_to_a_cluster_hold_any_name(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", classes=1, each=2)
    first = next(data.rglob("*.png"))
    first.rename(first.parent / os.fsdecode(b"b\xe9d.png"))
    entries = []
    for each in [
        *open_source(data),
        sample(3, name="\ud800"),
        sample(4, read=failing(OSError("\udc80"))),
    ]:
        entry, _ = entry_of(pack(each, "ignore"), send=False)
        entries.append(entry)
    assert [type(entry) for entry in entries].count(InFile) == 1
    assert [type(entry) for entry in entries].count(Sent) == 3
    for entry in entries:
        assert entry.model_validate_json(entry.model_dump_json()) == entry
    assert any("\\udce9" in entry.name for entry in entries)
    assert message(entries[0], [])


class Untold(ValueError):
    """An error of somebody's own that can't say what it is."""

    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_image_whose_error_has_no_text_is_left_out(tmp_path: Path) -> None:
    reasons: list[str] = []
    _, state = cache_features(
        [sample(0), sample(1, read=failing(Untold()))], toy(), tmp_path / "cache",
        on_bad=lambda name, reason: reasons.append(reason),
    )  # fmt: skip
    assert (state.bad, reasons) == (1, ["Untold: it says no more"])


@pytest.mark.parametrize(
    ("label", "classes"),
    [(3, ("3",)), (np.int64(3), ("3",)), (True, ("True",)), (b"x", ("x",)), (" a\n", ("a",)),
     ("", ()), ("\n", ()), (-1, ()), (None, ()), ("\udcff", ("\\udcff",))],
)  # fmt: skip
def test_a_label_that_comes_with_the_image_is_as_one_of_its_sample(
    label: Any, classes: tuple[str, ...], tmp_path: Path
) -> None:
    for number, samples in enumerate(
        ([sample(0, label=None, read=lambda: Item(image=photo(0), label=label))],
         [sample(0, label=label)])
    ):  # fmt: skip
        cache_features(samples, toy(), tmp_path / f"cache{number}")
        _, state = cache_features(samples, toy(), tmp_path / f"cache{number}")
        assert (read_card(tmp_path / f"cache{number}").labels, state.found) == (classes, 1)


@pytest.mark.parametrize("label", [1.5, ["a"], {"a": 1}])
def test_a_label_that_is_no_class_ends_the_pass(label: Any, tmp_path: Path) -> None:
    samples = [sample(0, label=None, read=lambda: Item(image=photo(0), label=label))]
    with pytest.raises(LabelError, match=r"0\.png: the label .* does not name a class"):
        cache_features(samples, toy(), tmp_path / "cache")
