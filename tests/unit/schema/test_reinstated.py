"""An engine that a person withdrew is given out again once it is verified and reinstated."""

from __future__ import annotations

import pytest
from support.records import attestation, machine

from zoo.schema.records import (
    Attestation,
    Status,
)
from zoo.schema.status import concerning, status_of, taken_back

STEPS = {
    "verified": ("verified", {"batches": []}),
    "missed": ("withdrawn", {"reason": "row 3 is far"}),
    "by-hand": ("withdrawn", {"reason": "it leaks", "by": "a maintainer"}),
    "reinstated": ("reinstated", {"reason": "it does not", "by": "a maintainer"}),
    "pending": ("pending", {"reason": "not run"}),
    "benchmarked": ("benchmarked", {"batches": []}),
}


def history(steps: str, capability: str | None = None) -> list[Attestation]:
    where = machine(gpu="a GPU", compute_capability=capability) if capability else {}
    return [
        attestation(STEPS[step][0], time=f"{number:03}", machine=where, body=STEPS[step][1])
        for number, step in enumerate(steps.split())
    ]


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ("verified by-hand", Status.WITHDRAWN),
        ("verified by-hand verified", Status.WITHDRAWN),
        ("verified by-hand pending", Status.WITHDRAWN),
        ("verified by-hand reinstated", Status.WITHDRAWN),
        ("verified reinstated by-hand verified", Status.WITHDRAWN),
        ("verified by-hand verified missed reinstated", Status.WITHDRAWN),
        ("verified by-hand verified reinstated by-hand", Status.WITHDRAWN),
        ("verified by-hand verified reinstated missed", Status.WITHDRAWN),
        ("verified by-hand verified reinstated", Status.VERIFIED),
        ("verified by-hand verified benchmarked reinstated", Status.VERIFIED),
        ("missed verified", Status.VERIFIED),
    ],
)
def test_the_status_of_a_history(steps: str, status: Status) -> None:
    attestations = history(steps)
    assert status_of(attestations)[0] is status
    assert (status_of(attestations)[1] is None) == (status is Status.VERIFIED)


def test_a_verification_on_one_gpu_reinstates_that_architecture_alone() -> None:
    attestations = history("verified by-hand verified reinstated", "8.6")
    assert taken_back(concerning(attestations, "sm86")) is None
    assert taken_back(concerning(attestations, "sm80")) is not None
