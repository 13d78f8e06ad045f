"""Somebody who can write to the store and has no key: what they leave there is not signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.goldens import assert_golden
from support.real_engines import PREPROCESS, build_real, engine_bytes, other_engine_bytes
from support.records import build_inputs
from support.signed_repository import Signed

from builders.publish.publisher import check_apart
from builders.publish.rerun import rerun_apart


@pytest.fixture
def bench(tmp_path: Path) -> Signed:
    """A repository whose publisher runs engines again, and an engine that it has signed."""
    signed = Signed(tmp_path, check=check_apart, rerun=rerun_apart)
    record = build_real(signed, "good", inputs=inputs("good"))
    signed.propose(record)
    assert not signed.publish().refused
    return signed


def inputs(model: str = "m") -> Any:
    return build_inputs(model=model, preprocess=PREPROCESS)


TEXT = b"an engine that never ran " * 800

ENGINES: dict[str, Callable[[Signed], Any]] = {
    "text": lambda s: build_real(s, engine=TEXT, inputs=inputs()),
    "other-network": lambda s: build_real(s, engine=other_engine_bytes(), inputs=inputs()),
    "other-width": lambda s: build_real(s, engine=engine_bytes(4), inputs=inputs()),
    "golden-text": lambda s: build_real(s, golden=TEXT, inputs=inputs()),
}


@pytest.mark.parametrize("case", ENGINES)
def test_a_cpu_engine_is_run_again_before_it_is_signed(bench: Signed, case: str) -> None:
    candidate = bench.propose(ENGINES[case](bench))
    refused = bench.publish().refused[candidate]
    assert_golden(f"publish/rerun-{case}", refused)
    assert [row.model for row in bench.client().index().models] == ["good"]


def test_an_engine_that_does_what_its_golden_file_says_is_signed(bench: Signed) -> None:
    (entry,) = bench.client().model("good").engines
    assert entry.status == "verified"


def test_what_is_signed_is_not_run_again(bench: Signed) -> None:
    ran: list[str] = []

    def counted(repository: Any, made: Any, previous: Any) -> None:
        golden = bench.repository.records("good")[0].golden
        bench.find(f"blobs/sha256/*/{golden.sha256}").unlink()  # running it would need this
        rerun_apart(repository, made, previous)
        ran.append(made.model)

    bench.rerun = counted
    bench.propose(bench.repository.records("good")[0], origin="https://example.org/other")
    assert not bench.publish().refused
    assert ran == ["good"]
