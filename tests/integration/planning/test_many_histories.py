"""2,000 random histories of a repository: what a plan says is what the run then does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.models import SMALL
from support.paths import MANIFESTS
from support.random_histories import EVENT, follow

from zoo.schema.manifest import load_manifests

HISTORIES, PARTS = 2000, 4
"""How many are generated, and by how many tests."""


@pytest.mark.parametrize(
    "part",
    [part if part % 2 else pytest.param(part, marks=pytest.mark.full) for part in range(PARTS)],
)
@settings(
    max_examples=HISTORIES // PARTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(EVENT, min_size=1, max_size=6))
def test_what_the_plan_says_is_what_the_run_does(
    tmp_path: Path, part: int, events: list[tuple[str, Any]]
) -> None:
    follow(load_manifests(MANIFESTS)[SMALL], tmp_path, events)
