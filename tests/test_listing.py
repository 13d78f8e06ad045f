"""What the index says of an engine that serves several architectures."""

from __future__ import annotations

from typing import Any

from test_backends import inputs

from builders.listing import engine_entries
from zoo.index import EngineEntry
from zoo.layout import record_key
from zoo.record import Attestation, Blob, BuildRecord, concerning
from zoo.repository import Repository
from zoo.stores import MemoryStore

LABELS = ("sm80-rtx1.7-fp16", "sm86-rtx1.7-fp16", "sm89-rtx1.7-fp16")
ENGINE = Blob(sha256="1" * 64, size=10)


def attestation(kind: Any, time: str, capability: str | None = None) -> Attestation:
    machine = {"gpu": {"name": "a GPU", "compute_capability": capability}} if capability else {}
    body: dict[str, Any] = {"batches": [], "reason": f"said at {time}"}
    return Attestation(
        kind=kind, engine=ENGINE.sha256, time=time, key="2" * 64, machine=machine, body=body
    )


def shared_record() -> BuildRecord:
    return BuildRecord(
        inputs=inputs("rtx", "sm80", "sm86", "sm89"),
        export_key="3" * 64,
        targets=LABELS,
        engine=ENGINE,
        golden=ENGINE,
        feature_dim=8,
        dry_run=False,
        precision_status="unproven",
        facts={},
        licence="mit",
        weights="w",
        cost={},
        created="2026-01-01T00:00:00Z",
    )


def shared_entries(repository: Repository) -> list[EngineEntry]:
    record = shared_record()
    repository.store.put(record_key("m", record.key), record.to_json())
    return engine_entries(repository, "m", record)


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
