"""Batch sizes that were too noisy to time are stated as such."""

from __future__ import annotations

from typing import Any

import pytest
from support.records import engine_entry, verified_batch


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (
            {"not_measured": [{"batch": 4, "not_measured": "a busy machine"}]},
            ((4, "a busy machine"),),
        ),
        ({"not_measured": [{"batch": "4", "not_measured": "a"}, 3, {"batch": 1}]}, ()),
        ({"not_measured": "all"}, ()),
        ({}, ()),
    ],
)
def test_what_was_not_timed_is_read_leniently(stated: dict[str, Any], expected: Any) -> None:
    numbers = {"batches": [verified_batch(1)], **stated}
    entry = engine_entry("cpu-ort1.32-fp32", verification=numbers)
    assert entry.unmeasured_times == expected
    assert engine_entry("cpu-ort1.32-fp32").unmeasured_times == ()
