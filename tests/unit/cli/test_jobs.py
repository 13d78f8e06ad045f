"""How many exports run at once: what ``JOBS=`` says, or what cores and memory allow."""

from __future__ import annotations

import os

import pytest
from support.goldens import assert_golden, raises_golden

from builders.cli.executor import choose_executor
from builders.cli.main import farm_parser
from builders.executors import at_once
from builders.executors.at_once import automatic_jobs, parse_jobs
from zoo.schema.targets import Arch
from zoo.util.errors import UsageError

GIB = 2**30


def machine(monkeypatch: pytest.MonkeyPatch, cores: int, gib: float | None) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    memory = None if gib is None else int(gib * GIB)
    monkeypatch.setattr(at_once, "available_memory", lambda: memory)


@pytest.mark.parametrize(
    ("cores", "gib", "limit", "jobs"),
    [
        (2, 64, None, 2),
        (4, 64, None, 4),
        (4, 15, None, 2),
        (4, 15, 3, 4),  # a job's limit counts instead of what most exports take
        (4, 15, 15, 1),
        (4, 1, None, 1),
        (1, 64, None, 1),
        (64, 512, None, 8),
        (3, None, None, 3),  # the system does not tell
    ],
)
def test_without_the_option_cores_and_memory_decide(
    monkeypatch: pytest.MonkeyPatch, cores: int, gib: float | None, limit: int | None, jobs: int
) -> None:
    machine(monkeypatch, cores, gib)
    assert automatic_jobs(None if limit is None else limit * GIB) == jobs


def test_the_option_is_a_whole_number_above_0() -> None:
    assert parse_jobs("") is None
    assert parse_jobs("3") == 3
    for text in ("0", "-1", "1.5", "two", "²", "٣", "10000", " 2"):
        with pytest.raises(UsageError) as caught:
            parse_jobs(text)
        assert caught.value.exit_code == 2
        assert_golden("executors/jobs", caught.value, {f"JOBS={text} ": "JOBS=TEXT "})


@pytest.mark.parametrize(("asked", "jobs"), [("", 4), ("1", 1), ("7", 7)])
def test_the_executor_of_this_machine_takes_it(
    monkeypatch: pytest.MonkeyPatch, asked: str, jobs: int
) -> None:
    machine(monkeypatch, 4, 64)
    options = farm_parser().parse_args(["zoo", "--jobs", asked])
    executor = choose_executor(options, [Arch("cpu")]).executor
    assert executor.exports_at_once == jobs
    assert executor.slots == 1


@pytest.mark.parametrize("name", ["docker", "dask"])
def test_other_executors_refuse_it(name: str) -> None:
    options = farm_parser().parse_args(["zoo", "--executor", name, "--jobs", "2"])
    with raises_golden(UsageError, "executors/jobs-elsewhere", {name: "EXECUTOR"}):
        choose_executor(options, [])
