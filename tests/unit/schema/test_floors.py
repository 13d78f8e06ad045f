"""Floors: one file for all models, and what a manifest may ask for instead."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from support.goldens import assert_golden

from zoo.schema.floors import OwnTolerance, floors, looser_by, tolerance
from zoo.schema.manifest import Manifest
from zoo.schema.targets import PRECISIONS


def test_every_precision_has_floors_and_lower_ones_are_looser() -> None:
    found = floors()
    assert set(found) == set(PRECISIONS)
    for stricter, looser in (("fp32", "fp16"), ("fp16", "bf16"), ("bf16", "int8")):
        upper, lower = found[stricter], found[looser]  # type: ignore[index]
        assert upper.cosine > lower.cosine
        assert upper.relative_error < lower.relative_error
        assert upper.distance_error < lower.distance_error
        assert upper.neighbours > lower.neighbours


def test_a_manifest_leaves_the_floors_number_by_number() -> None:
    own = OwnTolerance(cosine=0.98, reason="measured on real weights")
    kept = tolerance("fp16", own)
    assert kept.cosine == 0.98
    assert kept.relative_error == floors()["fp16"].relative_error
    assert tolerance("fp16", None) == floors()["fp16"]
    assert looser_by("fp16", own) == ["cosine 0.98 (the floor is 0.999)"]
    assert looser_by("fp16", OwnTolerance(cosine=0.9999, relative_error=0.01)) == []
    assert looser_by("fp16", OwnTolerance(relative_error=0.06))


def test_an_empty_table_says_so() -> None:
    with pytest.raises(ValidationError) as caught:
        OwnTolerance(reason="none")
    assert_golden("schema/empty-tolerance", caught.value.errors()[0]["msg"])


def test_a_reason_of_spaces_is_none() -> None:
    with pytest.raises(ValidationError) as caught:
        OwnTolerance(cosine=0.98, reason="  ")
    assert caught.value.errors()[0]["loc"] == ("reason",)


def test_no_manifest_of_ours_is_looser(manifests: dict[str, Manifest]) -> None:
    for manifest in manifests.values():
        assert not manifest.tolerance, manifest.id
