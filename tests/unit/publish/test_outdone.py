"""What makes a new engine worse than the published one of the same inputs."""

from __future__ import annotations

from typing import Any

import pytest
from support.records import verification, verified_batch

from builders.publish.outdone import farther
from zoo.schema.index import VerificationSummary

PUBLISHED = {"cosine": 0.9995082, "distance": 0.097}
"""Of a network of timm that was calibrated on the bundled photos."""


def summary(cosine: float, distance: float, errors: float | None = None) -> VerificationSummary:
    """Returns numbers whose golden photos all have one distance error."""
    changes: dict[str, Any] = {"worst_cosine": cosine, "worst_distance_error": distance}
    if errors is not None:
        numbers = {"cosine": cosine, "relative_error": 0.01, "distance_error": errors}
        changes["photos"] = {str(photo): numbers for photo in range(12)}
    return verification(verified_batch(8, **changes))


@pytest.mark.parametrize(
    ("new", "is_farther"),
    [
        ({"cosine": 0.9984206, "distance": 0.120}, True),  # calibrated on 4 distinct photos
        ({"cosine": 0.9993, "distance": 0.120}, False),  # within noise
        ({"cosine": 0.9995, "distance": 0.2}, True),
        ({"cosine": 0.9995082, "distance": 0.097}, False),
        ({"cosine": 0.99999, "distance": 0.01}, False),
    ],
)
def test_what_is_worse_at_worst(new: dict[str, float], is_farther: bool) -> None:
    assert (farther(summary(**PUBLISHED), summary(**new)) is not None) == is_farther


@pytest.mark.parametrize(("errors", "is_farther"), [(0.05, True), (0.041, False), (0.02, False)])
def test_most_photos_outweigh_the_worst(errors: float, is_farther: bool) -> None:
    old = summary(**PUBLISHED, errors=0.04)
    worst = {"cosine": 0.9984206, "distance": 0.120} if errors < 0.04 else PUBLISHED
    assert (farther(old, summary(**worst, errors=errors)) is not None) == is_farther


def test_rounding_is_not_worse() -> None:
    assert farther(summary(0.9999999, 0.0001), summary(0.9999995, 0.0004)) is None
