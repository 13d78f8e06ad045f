"""Models that patterns match, and names that a pattern may have been meant for."""

from __future__ import annotations

import pytest
from support.goldens import raises_golden
from support.records import model_index

from zoo.client.models import Models, check_patterns, matching
from zoo.schema.index import index_row
from zoo.util.errors import UsageError
from zoo.util.names import listed, perhaps_matching

NAMES = ("resnet18", "resnet50", "vit_base_patch16_224", "vit_large_patch16_224", "vgg16")


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("resnet55", ["resnet50"]),
        ("resnet_*", ["resnet18", "resnet50"]),
        ("ViT*", ["vit_base_patch16_224", "vit_large_patch16_224"]),
        ("vitt_*", ["vit_base_patch16_224", "vit_large_patch16_224"]),
        ("vit_*_224.augreg", ["vit_base_patch16_224", "vit_large_patch16_224"]),
        ("?gg19", ["vgg16"]),
        ("dog", []),
        ("*", []),
        ("", []),
    ],
)
def test_near_names_of_a_pattern_are_suggested(pattern: str, near: list[str]) -> None:
    words = perhaps_matching(pattern, NAMES)
    assert {name for name in NAMES if f"'{name}'" in words} >= set(near[:1])
    assert all(f"'{name}'" in words for name in near)
    assert bool(words) == bool(near)


def test_many_names_are_cut() -> None:
    names = [f"m{number}" for number in range(1000)]
    assert listed(names[:21]).endswith("m19, m20")
    assert listed(names).endswith("m18, m19 and 980 more")


def test_each_pattern_has_to_match_only_where_it_is_checked() -> None:
    rows = [index_row(model_index(), b"")]
    name = rows[0].model
    assert matching(rows, ["none*", name]) == rows
    assert matching(rows, ["none*"]) == []
    assert matching(rows, []) == rows
    check_patterns(rows, [name, rows[0].family, f"{name}*"])
    with raises_golden(UsageError, "client/no_match"):
        check_patterns(rows, [name, f"{name}x"])
    assert repr(Models([])) == "no models"
