"""What the names of attestations state, and that they sort by time."""

from __future__ import annotations

import pytest
from support.records import attestation, machine

from zoo.repository.repository import Repository
from zoo.schema.attestation_names import (
    may_state_status,
    may_withdraw,
    name_of,
    read_name,
    shortened,
)
from zoo.schema.records import AttestationKind, Status
from zoo.stores import MemoryStore

BUILD, KEY = "b" * 64, "4" * 64
STATUS = {
    "verified": Status.VERIFIED, "pending": Status.PENDING, "withdrawn": Status.WITHDRAWN,
    "benchmarked": None, "compared": None, "reinstated": None,
}  # fmt: skip


@pytest.mark.parametrize("kind", AttestationKind)
def test_a_name_states_what_a_plan_needs(kind: AttestationKind) -> None:
    gpu = machine(cpu=None, gpu="a GPU", compute_capability="8.6")
    key = f"attestations/x/{name_of(attestation(kind, machine=gpu, key=KEY), BUILD)}"
    stated = read_name(key)
    assert stated is not None
    assert (stated.arch, stated.key, stated.build) == ("sm86", shortened(KEY), shortened(BUILD))
    assert stated.status is STATUS[kind]
    assert may_withdraw(key) == (stated.status is Status.WITHDRAWN)
    assert may_state_status(key) == (stated.status is not None)
    assert len(key.rpartition("/")[2]) < 255


def test_a_machine_without_a_gpu_is_a_cpu() -> None:
    stated = read_name(name_of(attestation(), BUILD))
    assert stated is not None
    assert stated.arch == "cpu"


@pytest.mark.parametrize("kind", AttestationKind)
def test_names_of_earlier_versions_state_the_kind_alone(kind: AttestationKind) -> None:
    name = name_of(attestation(kind), None)
    assert read_name(name) is None
    assert may_withdraw(name) == (STATUS[kind] is Status.WITHDRAWN)
    assert may_state_status(name) == (STATUS[kind] is not None)


@pytest.mark.parametrize(
    "name", ["", "x.json", "2026-01-01T000000Z.json", "2026-01-01T000000Z-invented-0000.json"]
)
def test_a_name_of_another_form_may_state_anything(name: str) -> None:
    assert read_name(name) is None
    assert may_withdraw(name)
    assert may_state_status(name)


def test_attestations_of_both_forms_are_read_oldest_first() -> None:
    repository = Repository(MemoryStore())
    times = [f"2026-01-01T00:00:00.00000{n}Z" for n in range(4)]
    for n in (2, 0, 3, 1):
        repository.attest(attestation(time=times[n]), BUILD if n % 2 else None)
    read = repository.attestations(attestation().engine)
    assert [one.time for one in read] == times
