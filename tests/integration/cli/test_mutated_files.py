"""Damaged files of every kind: an error of this project, in time; see ``support.mutations``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mutations import Kind, kinds, mutated, run

_EACH = 40
_AFTER = 1_000_000  # not those that the long run has


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Kind]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries about damaged photos
        yield kinds(tmp_path_factory.mktemp("kinds"))


def test_damaged_files_of_every_kind_are_errors_of_this_project(made: dict[str, Kind]) -> None:
    assert len(made) >= 30
    faults, read = [], 0
    for name, kind in made.items():
        tally = run(kind, name, range(_AFTER, _AFTER + _EACH))
        faults += tally.faults
        read += tally.outcomes["read"]
        assert tally.outcomes.total() == _EACH
    assert faults == []
    assert 0 < read < len(made) * _EACH  # some damage does no harm, most is found


def test_a_mutation_is_always_the_same() -> None:
    sound = Path(__file__).read_bytes()
    made = [mutated(sound, number, "kind") for number in range(100)]
    assert made == [mutated(sound, number, "kind") for number in range(100)]
    assert len(set(made)) > 90
    assert sound not in made[:1] or made[1] != sound
