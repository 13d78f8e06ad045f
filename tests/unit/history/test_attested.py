"""What the names of a repository's attestations say of an engine, and when they do not."""

from __future__ import annotations

from typing import Any

import pytest
from support.records import attestation, machine

from builders.history.attested import Attested, NamedVerdict
from builders.history.listing import Listing
from zoo.repository.repository import Repository
from zoo.schema.attestation_names import shortened
from zoo.stores import MemoryStore

BUILD, ENGINE, OTHER = "b" * 64, "e" * 64, "f" * 64
FIRST, SECOND = "1" * 64, "2" * 64
GPU = machine(cpu=None, gpu="a GPU", compute_capability="8.6")


def attested(*stated: dict[str, Any]) -> Attested:
    """Attests one after the other, of the build unless it says ``"build": None``."""
    repository = Repository(MemoryStore())
    for n, one in enumerate(stated):
        values = {"engine": ENGINE, "time": f"2026-01-01T00:00:0{n}Z", "machine": GPU, **one}
        build = values.pop("build", BUILD)
        repository.attest(attestation(values.pop("kind", "verified"), **values), build)
    return Attested(Listing(repository))


def test_the_last_verdict_counts() -> None:
    found = attested({"key": FIRST}, {"key": SECOND}, {"kind": "benchmarked", "key": FIRST})
    verdict = found.verdict(BUILD, "sm86")
    assert verdict == NamedVerdict(ENGINE, shortened(SECOND))
    assert verdict.is_of(SECOND)
    assert not verdict.is_of(FIRST)


def test_a_verdict_on_another_gpu_does_not_count() -> None:
    assert attested({"key": FIRST}).verdict(BUILD, "sm89") == NamedVerdict(ENGINE, None)


def test_what_was_never_run_has_no_verdict() -> None:
    assert attested({"kind": "pending"}).verdict(BUILD, "sm86") == NamedVerdict(ENGINE, None)


@pytest.mark.parametrize(
    "stated",
    [
        pytest.param([{"kind": "withdrawn"}, {}], id="may-be-withdrawn"),
        pytest.param([{}, {"build": None}], id="verdict-of-an-earlier-version"),
        pytest.param([{}, {"engine": OTHER}], id="built-twice"),
        pytest.param([{"build": None}], id="attested-by-an-earlier-version"),
        pytest.param([], id="not-attested"),
    ],
)
def test_what_names_do_not_tell_is_left_to_the_attestations(stated: list[dict[str, Any]]) -> None:
    assert attested(*stated).verdict(BUILD, "sm86") is None


def test_a_comparison_of_an_earlier_version_hides_no_verdict() -> None:
    found = attested({"key": FIRST}, {"kind": "compared", "build": None})
    assert found.verdict(BUILD, "sm86") == NamedVerdict(ENGINE, shortened(FIRST))


def test_engines_that_may_be_withdrawn_are_named() -> None:
    found = attested({}, {"engine": OTHER, "kind": "withdrawn", "build": None})
    assert found.withdrawn() == {OTHER}
    assert found.engine(BUILD) == ENGINE
