"""What the index says of an engine that serves several architectures."""

from __future__ import annotations

from typing import Any

from support.records import attestation as recorded
from support.records import blob, build_inputs, build_record, machine, model_card, toolchain

from builders.publish.entries import engine_entries
from zoo.repository.repository import Repository
from zoo.schema.index import EngineEntry
from zoo.schema.layout import record_key
from zoo.schema.records import (
    Attestation,
    BuildRecord,
)
from zoo.schema.status import concerning
from zoo.stores import MemoryStore

LABELS = ("sm80-rtx1.7-fp16", "sm86-rtx1.7-fp16", "sm89-rtx1.7-fp16")
ENGINE = blob(b"engine")


def attestation(kind: Any, time: str, capability: str | None = None) -> Attestation:
    where = machine(gpu="a GPU", compute_capability=capability) if capability else {}
    body: dict[str, Any] = {"batches": [], "reason": f"said at {time}"}
    return recorded(kind, time=time, machine=where, body=body)


def shared_record() -> BuildRecord:
    inputs = build_inputs(
        archs=("sm80", "sm86", "sm89"), precision="fp16", toolchain=toolchain("rtx")
    )
    return build_record(inputs=inputs, precision_status="unproven")


def shared_entries(repository: Repository) -> list[EngineEntry]:
    record = shared_record()
    repository.store.put(record_key("m", record.key), record.to_json())
    return engine_entries(repository, model_card(), record)


def statuses(*attestations: Attestation) -> dict[str, str]:
    repository = Repository(MemoryStore())
    for one in attestations:
        repository.attest(one)
    entries = shared_entries(repository)
    return {label: entry.status for entry in entries for label in entry.targets}


def test_a_verdict_on_one_gpu_promotes_that_architecture_alone() -> None:
    pending, verified = attestation("pending", "1"), attestation("verified", "2", "8.6")
    assert statuses(pending) == dict.fromkeys(LABELS, "pending")
    assert statuses(pending, verified) == {
        LABELS[0]: "pending",
        LABELS[1]: "verified",
        LABELS[2]: "pending",
    }


def test_a_withdrawal_on_one_gpu_leaves_the_others_as_they_are() -> None:
    found = statuses(
        attestation("pending", "1"),
        attestation("verified", "2", "8.6"),
        attestation("withdrawn", "3", "8.9"),
    )
    assert found == {LABELS[0]: "pending", LABELS[1]: "verified", LABELS[2]: "withdrawn"}


def test_targets_of_which_the_same_is_known_share_an_entry() -> None:
    repository = Repository(MemoryStore())
    repository.attest(attestation("pending", "1"))
    repository.attest(attestation("verified", "2", "8.6"))
    entries = shared_entries(repository)
    assert [entry.targets for entry in entries] == [(LABELS[0], LABELS[2]), (LABELS[1],)]


def test_on_the_cpu_every_attestation_counts() -> None:
    on_gpu_machine = attestation("verified", "1", "9.0")
    assert concerning([on_gpu_machine], "cpu") == [on_gpu_machine]
    assert concerning([on_gpu_machine], "sm80") == []
