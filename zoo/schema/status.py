"""The status that an engine has according to its attestations."""

from __future__ import annotations

from collections.abc import Iterable

from typing_extensions import assert_never

from zoo.schema.closed import Unknown
from zoo.schema.measurements import MachineDescription
from zoo.schema.records import Attestation, AttestationKind, Status


def concerning(attestations: Iterable[Attestation], arch: str) -> list[Attestation]:
    """Returns the attestations that apply to an engine on one architecture.

    An engine may serve several architectures; results on one say nothing about the others.

    Args:
        attestations: The engine's attestations, oldest first.
        arch: ``cpu`` or ``sm86``.
    """
    return [
        attestation
        for attestation in attestations
        if arch == "cpu"
        or attestation.kind == AttestationKind.PENDING
        or attestation.kind == AttestationKind.REINSTATED
        or attestation.by_hand
        or gpu_arch(attestation.machine) == arch
    ]


def gpu_arch(machine: MachineDescription) -> str:
    """Returns the architecture of a machine's GPU: ``sm86``; ``sm`` if it has or states none."""
    capability = (machine.gpu.compute_capability if machine.gpu else None) or ""
    return f"sm{capability.replace('.', '')}"


def taken_back(attestations: Iterable[Attestation]) -> Attestation | None:
    """Returns the withdrawal by hand that is in force; None if there is none.

    It ends when a person reinstates the engine, if the engine was verified since the withdrawal and
    that is its last verdict. A verification alone does not end it: a person may have withdrawn the
    engine for a reason that no verification sees.

    Args:
        attestations: The engine's attestations, oldest first.
    """
    withdrawal: Attestation | None = None
    is_verified = False  # since the withdrawal
    for attestation in attestations:
        if attestation.by_hand:
            withdrawal, is_verified = attestation, False
        elif is_verdict(attestation):
            is_verified = status_stated(attestation.kind) is Status.VERIFIED
        elif attestation.kind == AttestationKind.REINSTATED and is_verified:
            withdrawal = None
    return withdrawal


def status_of(attestations: list[Attestation]) -> tuple[Status, str | None]:
    """Returns an engine's status according to its attestations.

    Args:
        attestations: The engine's attestations, oldest first.

    Returns:
        The status, and the reason if it is not ``verified``.
    """
    if (withdrawal := taken_back(attestations)) is not None:
        return Status.WITHDRAWN, withdrawal.body.reason or ""
    status: Status = Status.PENDING
    reason: str | None = "nothing has been attested yet"
    for attestation in attestations:
        stated = status_stated(attestation.kind)
        if stated is None:
            continue
        status = stated
        reason = None if status == Status.VERIFIED else attestation.body.reason or ""
    return status, reason


def is_verdict(attestation: Attestation) -> bool:
    """Whether an attestation says if an engine meets its tolerance."""
    return status_stated(attestation.kind) in (Status.VERIFIED, Status.WITHDRAWN)


def status_stated(kind: AttestationKind | Unknown) -> Status | None:
    """Returns the status that an attestation gives an engine, None if it gives none."""
    if isinstance(kind, Unknown):
        return None
    match kind:
        case AttestationKind.VERIFIED:
            return Status.VERIFIED
        case AttestationKind.PENDING:
            return Status.PENDING
        case AttestationKind.WITHDRAWN:
            return Status.WITHDRAWN
        case AttestationKind.BENCHMARKED | AttestationKind.COMPARED | AttestationKind.REINSTATED:
            return None
        case _:
            assert_never(kind)
