"""Which profile runs a batch, and how larger ones are split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.planning.wanted import largest_batch
from zoo.runtime.profiles import choose_profile, pieces
from zoo.schema.manifest import Batches, BatchRange, Manifest

LATENCY, BULK = BatchRange(opt=1, max=8), BatchRange(min=9, opt=256, max=256)
STATIC = BatchRange(min=256, opt=256, max=256)


@pytest.mark.parametrize(
    ("profiles", "batch", "chosen"),
    [
        ((LATENCY, BULK), 1, 0),
        ((LATENCY, BULK), 8, 0),
        ((LATENCY, BULK), 9, 1),
        ((LATENCY, BULK), 256, 1),
        ((LATENCY, STATIC), 100, 1),  # none takes it: padded into the next
        ((BatchRange(opt=1, max=256), STATIC), 256, 1),  # both take it: the one tuned for it
        ((BatchRange(opt=1, max=256), BatchRange(opt=256, max=256)), 20, 1),
        ((BatchRange(opt=1, max=256), BatchRange(opt=256, max=256)), 12, 0),
    ],
)
def test_the_profile_tuned_nearest_runs_a_batch(
    profiles: tuple[BatchRange, ...], batch: int, chosen: int
) -> None:
    assert choose_profile(profiles, batch) == chosen


@given(
    rows=st.integers(1, 2000),
    profiles=st.sampled_from([(LATENCY,), (LATENCY, BULK), (LATENCY, STATIC)]),
)
def test_pieces_cover_every_row_once_and_fit(rows: int, profiles: tuple[BatchRange, ...]) -> None:
    found = pieces(profiles, rows)
    assert [row for one in found for row in range(one.start, one.start + one.rows)] == list(
        range(rows)
    )
    for one in found:
        assert one.rows <= one.batch
        assert one.batch in profiles[one.profile]


def test_every_manifest_has_a_latency_and_a_bulk_profile(manifests: dict[str, Manifest]) -> None:
    for manifest in manifests.values():
        latency, *between, bulk = manifest.batch.gpu
        assert latency.opt == 1
        assert bulk.opt == bulk.max
        assert (between or [bulk])[0].min == latency.max + 1


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        ((BatchRange(min=2, opt=4, max=8),), "does not support a batch of 1"),
        ((BULK.model_copy(update={"min": 1}), LATENCY), "not in order"),
    ],
)
def test_profiles_that_make_no_sense_are_refused(gpu: tuple[BatchRange, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Batches(gpu=gpu)


def test_the_budget_limits_each_profile() -> None:
    assert BULK.limited(32) == BatchRange(min=9, opt=32, max=32)
    assert largest_batch(2**40) == 1
