"""Processes that make many objects look for cycles seldom."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from zoo.util.garbage import collect_seldom


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_what_there_is_is_left_alone_and_cycles_are_still_found() -> None:
    before = gc.get_threshold()
    collect_seldom()
    assert gc.get_threshold() > before
    assert gc.get_freeze_count() > 1_000
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1
