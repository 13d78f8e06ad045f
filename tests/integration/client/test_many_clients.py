"""Clients that pull while the repository changes: a small version of ``benchmarks.load``."""

from __future__ import annotations

from pathlib import Path

from benchmarks.load import Load, content, growth, run


def test_clients_read_what_is_signed_while_everything_changes(tmp_path: Path) -> None:
    outcome = run(
        Load(
            folder=tmp_path / "load",
            seconds=5,
            clients=4,
            engines=3,
            size=20_000,
            pause=0.1,
            grace=30,
            sample=1,
        )
    )
    assert outcome.faults == []
    done = outcome.counts
    assert done["rounds of clients"] >= 4
    assert done["engines checked"] >= 12
    assert done["mirrors, each read in full"] >= 1
    assert done["publications"] >= 1
    # Each command asks for the next root once, and again if the index changes meanwhile.
    assert done["requests, 404"] >= done["rounds of clients"]
    assert set(outcome.memory) >= {"server", "publisher", "mirror", "client3"}


def test_the_bytes_of_an_engine_follow_from_its_version() -> None:
    right = content("m", 3, 100)
    assert right != content("m", 4, 100)
    assert right == content("m", 3, 100)
    assert len(right) == 100


def test_growth_is_from_the_second_fifth_to_the_last() -> None:
    assert growth([9, 1, 1, 1, 1]) == 0
    assert growth([1, 2, 3, 4, 5]) == 3
