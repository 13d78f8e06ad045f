"""Makes the index entries of an engine from its record and attestations."""

from __future__ import annotations

from typing import TypedDict

from builders.publish.corrections import replaced
from zoo.repository.repository import Repository
from zoo.schema.index import (
    BenchmarkSummary,
    ComparisonSummary,
    EngineEntry,
    ModelCard,
    VerificationSummary,
)
from zoo.schema.records import (
    Attestation,
    AttestationKind,
    Blob,
    BuildRecord,
    Status,
)
from zoo.schema.status import concerning, status_of
from zoo.schema.targets import arch_of


def engine_entries(
    repository: Repository,
    card: ModelCard,
    record: BuildRecord,
    targets: tuple[str, ...] | None = None,
) -> list[EngineEntry]:
    """Returns the index entries of an engine.

    Args:
        repository: Where attestations are stored.
        card: Its model.
        record: The engine.
        targets: Labels of the targets that it is current for; all that it serves if None.

    Returns:
        One entry per group of targets with the same attestations: an engine that serves several
        architectures and has been run on one of them has two entries.
    """
    attestations = repository.attestations(record.engine.sha256)
    groups: dict[tuple[str, ...], tuple[list[Attestation], list[str]]] = {}
    for label in record.targets if targets is None else targets:
        known = concerning(attestations, arch_of(label))
        names = tuple(attestation.name for attestation in known)
        groups.setdefault(names, (known, []))[1].append(label)
    file = repository.record_file(card.model, record.key)
    papers = replaced(card, record)
    return [
        _engine_entry(record, file, known, tuple(labels), papers)
        for known, labels in groups.values()
    ]


def _engine_entry(
    record: BuildRecord,
    file: Blob,
    attestations: list[Attestation],
    targets: tuple[str, ...],
    papers: dict[str, Blob],
) -> EngineEntry:
    signed = any(attestation.signature is not None for attestation in attestations)
    return EngineEntry(
        record=record.key,
        record_file=file,
        targets=targets,
        precision=record.inputs.precision,
        advice=record.advice,
        engine=Blob(sha256=record.engine.sha256, size=record.engine.size),
        toolchain=record.inputs.toolchain,
        batch=record.inputs.batch,
        feature_dim=record.feature_dim,
        preprocess=record.inputs.preprocess,
        dry_run=record.dry_run,
        precision_status=record.precision_status,
        cost=record.cost,
        created=record.created,
        documents=papers,
        attested=tuple(sorted(one.short for one in attestations)) if signed else (),
        **stated_of(attestations),
    )


class Stated(TypedDict):
    """The fields of an index entry that come from an engine's attestations."""

    status: Status
    reason: str | None
    verification: VerificationSummary | None
    benchmark: BenchmarkSummary | None
    comparison: ComparisonSummary | None


def stated_of(attestations: list[Attestation]) -> Stated:
    """Returns the fields of an index entry that come from an engine's attestations.

    Args:
        attestations: Those that apply to the entry's targets, oldest first.
    """
    status, reason = status_of(attestations)
    latest = {attestation.kind: attestation for attestation in attestations}
    verified, benchmarked = (
        latest.get(AttestationKind.VERIFIED),
        latest.get(AttestationKind.BENCHMARKED),
    )
    compared = latest.get(AttestationKind.COMPARED)
    return {
        "status": status,
        "reason": reason,
        "verification": VerificationSummary.model_validate(
            {**verified.body.model_dump(), "machine": verified.machine, "key": verified.key}
        )
        if verified
        else None,
        "benchmark": BenchmarkSummary.model_validate(
            {**benchmarked.body.model_dump(), "machine": benchmarked.machine}
        )
        if benchmarked
        else None,
        "comparison": ComparisonSummary.model_validate(
            {**compared.body.model_dump(), "machine": compared.machine}
        )
        if compared
        else None,
    }
