"""Listing: what a repository's index says of a model, from its records and attestations."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.index import (
    BenchmarkSummary,
    ComparisonSummary,
    DisabledCell,
    EngineEntry,
    ModelIndex,
    OwnFloor,
    VerificationSummary,
)
from zoo.key import WeightsIdentity
from zoo.manifest import Manifest
from zoo.record import Attestation, Blob, BuildRecord, DisabledRecord, concerning, status_of
from zoo.repository import Repository
from zoo.target import Target
from zoo.tolerance import looser_by


def model_index(
    repository: Repository,
    manifest: Manifest,
    weights: WeightsIdentity,
    current: Iterable[BuildRecord],
    disabled: Iterable[DisabledCell] = (),
) -> ModelIndex:
    """Collects what ``index/<model>.json`` says.

    Args:
        repository: Where records and attestations lie.
        manifest: The model's card.
        weights: Which weights it means.
        current: The records of this run. What serves other targets stays in the index for those,
            unless the manifest has come to mean other weights, another cut or other preprocessing.
        disabled: Targets that this run found can't be had.
    """
    records = {record.key: record for record in current}
    entries = [entry for one in records.values() for entry in engine_entries(repository, one)]
    cells = list(disabled)
    labels = [one.targets for one in entries] + [one.targets for one in cells]
    taken = {_cell(label) for targets in labels for label in targets}
    previous = repository.model_index(manifest.id)
    for entry in previous.engines if previous else ():
        left = tuple(label for label in entry.targets if _cell(label) not in taken)
        record = repository.record(manifest.id, entry.record)
        if left and record is not None and _is_of(repository, record, manifest, weights):
            entries += engine_entries(repository, record, left)
    for cell in previous.disabled if previous else ():
        left = tuple(label for label in cell.targets if _cell(label) not in taken)
        found = repository.disabled(manifest.id, cell.record)
        if left and found is not None and found.inputs.weights == weights:
            cells.append(cell.model_copy(update={"targets": left}))
    ordered = sorted(entries, key=lambda entry: entry.targets)
    return ModelIndex(
        model=manifest.id,
        family=manifest.family,
        timm_name=manifest.timm_name,
        licence=manifest.licence,
        origin=manifest.origin,
        weights=weights.source,
        feature_dim=manifest.backbone.feature_dim,
        cut=manifest.backbone.cut,
        preprocess=manifest.preprocess,
        catalog=manifest.catalog,
        engines=tuple(ordered),
        disabled=tuple(sorted(cells, key=lambda cell: cell.targets)),
        own_floors={
            precision: OwnFloor(looser=tuple(looser), reason=own.reason or "")
            for precision, own in manifest.tolerance.items()
            if (looser := looser_by(precision, own))
        },
    )


def _cell(label: str) -> str:
    """Returns a target's label without the word that some operators are kept higher."""
    return label.removesuffix("-mixed")


def _is_of(
    repository: Repository, record: BuildRecord, manifest: Manifest, weights: WeightsIdentity
) -> bool:
    """Whether an engine is of what its manifest means now."""
    export = repository.export(manifest.id, record.export_key)
    return (
        export is not None
        and export.inputs.weights == weights
        and export.inputs.backbone == manifest.backbone
        and record.inputs.preprocess == manifest.preprocess.plain
    )


def engine_entries(
    repository: Repository, record: BuildRecord, targets: tuple[str, ...] | None = None
) -> list[EngineEntry]:
    """Collects what the index says of an engine.

    Args:
        repository: Where attestations lie.
        record: The engine.
        targets: Labels that it is current for; all that it serves when None.

    Returns:
        One entry for the targets of which the same is known; an engine that serves several
        architectures and has been run on one has two.
    """
    attestations = repository.attestations(record.engine.sha256)
    groups: dict[tuple[str, ...], tuple[list[Attestation], list[str]]] = {}
    for label in record.targets if targets is None else targets:
        known = concerning(attestations, label.partition("-")[0])
        names = tuple(one.name for one in known)
        groups.setdefault(names, (known, []))[1].append(label)
    return [_engine_entry(record, known, tuple(labels)) for known, labels in groups.values()]


def _engine_entry(
    record: BuildRecord, attestations: list[Attestation], targets: tuple[str, ...]
) -> EngineEntry:
    status, reason = status_of(attestations)
    latest = {attestation.kind: attestation for attestation in attestations}

    verified, benchmarked = latest.get("verified"), latest.get("benchmarked")
    compared = latest.get("compared")
    return EngineEntry(
        record=record.key,
        targets=targets,
        precision=record.inputs.precision,
        advice=record.advice,
        status=status,
        reason=reason,
        engine=Blob(sha256=record.engine.sha256, size=record.engine.size),
        toolchain=record.inputs.toolchain,
        batch=record.inputs.batch,
        feature_dim=record.feature_dim,
        preprocess=record.inputs.preprocess,
        dry_run=record.dry_run,
        precision_status=record.precision_status,
        verification=VerificationSummary(**verified.body, machine=verified.machine)
        if verified
        else None,
        benchmark=BenchmarkSummary(**benchmarked.body, machine=benchmarked.machine)
        if benchmarked
        else None,
        comparison=ComparisonSummary(**compared.body, machine=compared.machine)
        if compared
        else None,
        cost=record.cost,
        created=record.created,
    )


def refresh_index(repository: Repository, model: str) -> None:
    """Writes a model's index again: its card as it is, its engines as they stand now."""
    index, kind = repository.model_index(model), repository.kind()
    assert index is not None
    assert kind is not None
    engines: list[EngineEntry] = []
    for entry in index.engines:
        record = repository.record(model, entry.record)
        engines += engine_entries(repository, record, entry.targets) if record else [entry]
    ordered = tuple(sorted(engines, key=lambda entry: entry.targets))
    repository.write_index(kind, [index.model_copy(update={"engines": ordered})])


def disabled_cell(targets: Iterable[Target], record: DisabledRecord) -> DisabledCell:
    """Says of some targets that there is no engine for them."""
    return DisabledCell(
        targets=tuple(map(str, targets)),
        precision=record.inputs.precision,
        reason=record.reason,
        record=record.inputs.key,
    )
