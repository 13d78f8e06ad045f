"""Computes a model's index from its records and attestations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from pydantic import ValidationError
from typing_extensions import assert_never

from builders.publish.chunk_lists import carried_over
from builders.publish.corrections import TIME as TIME
from builders.publish.corrections import history
from builders.publish.entries import engine_entries
from builders.publish.outdone import Settled, settle
from builders.publish.tolerances import meets
from zoo.repository.failures import failures_of
from zoo.repository.repository import Repository
from zoo.schema.floors import Tolerance, looser_by
from zoo.schema.index import (
    Candidate,
    DisabledCell,
    EngineEntry,
    ModelCard,
    ModelIndex,
    OwnFloor,
)
from zoo.schema.keys import BuildInputs, ExportInputs, WeightsIdentity
from zoo.schema.manifest import Manifest
from zoo.schema.records import (
    BuildRecord,
    Status,
)
from zoo.schema.targets import cell_of

SUPERSEDED_STAYS = timedelta(days=30)
"""How long a superseded engine stays in the index, for users who need its exact runtime."""


def model_card(manifest: Manifest, weights: WeightsIdentity) -> ModelCard:
    """Returns a model's card for the index."""
    return ModelCard(
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
        own_floors={
            precision: OwnFloor(looser=tuple(looser), reason=own.reason or "")
            for precision, own in manifest.tolerance.items()
            if (looser := looser_by(precision, own))
        },
        deviations={str(fact): reason for fact, reason in manifest.deviations.items()},
    )


def corrected(card: ModelCard, manifest: Manifest) -> ModelCard:
    """Returns a card with the facts of a manifest that are no inputs of engines."""
    changes = {"licence": manifest.licence, "origin": manifest.origin, "catalog": manifest.catalog}
    return card.model_copy(update=changes)


def propose(
    repository: Repository, candidate: Candidate, now: Callable[[], datetime]
) -> ModelIndex | None:
    """Writes a candidate unless it would not change the index.

    Args:
        repository: Where it is stored.
        candidate: The candidate.
        now: The clock. It is read again when the candidate is signed: of two candidates of a
            builder, the publisher refuses the earlier if it comes second.

    Returns:
        The index that it makes; None if that is the current one.
    """
    index, model = repository.index(), candidate.card.model
    listed = index is not None and any(row.model == model for row in index.models)
    current = repository.model_index(model) if listed else None
    made = model_index(repository, candidate, current, now())
    if made == (current or made.model_copy(update={"engines": (), "disabled": ()})):
        return None
    if not _waits(repository, candidate):
        time = _after(current, now()).strftime(TIME)
        repository.candidates.propose(candidate.model_copy(update={"proposed": time}))
    return made


def _after(current: ModelIndex | None, now: datetime) -> datetime:
    """Returns the time, or one after every signed proposal if a clock was ahead of this one."""
    times = [now]
    for stated in current.proposals.values() if current else ():
        with suppress(ValueError, OverflowError):
            times.append(_time(stated) + timedelta(microseconds=1))
    return max(times)


def _waits(repository: Repository, candidate: Candidate) -> bool:
    """Whether the newest candidate of the model that waits is the same, and is this machine's."""
    keys = [
        key for key in repository.candidates.waiting() if key.split("/")[1] == candidate.card.model
    ]
    newest = repository.candidates.read(keys[-1]) if keys else None
    if newest is None:
        return False
    same = candidate.model_copy(update={"proposed": newest.proposed})
    return newest == repository.candidates.signed(same)


def propose_again(
    repository: Repository, model: str, now: Callable[[], datetime]
) -> ModelIndex | None:
    """Proposes a model's current index entries with the attestations added since."""
    index = repository.model_index(model)
    assert index is not None
    return propose(repository, Candidate(card=index.card), now)


def model_index(
    repository: Repository, candidate: Candidate, previous: ModelIndex | None, now: datetime
) -> ModelIndex:
    """Returns the new content of ``index/<model>.json``.

    What is proven stays until something better is proven: a verified engine leaves only if a
    verified one replaces it that is not farther from PyTorch or made for another purpose
    (:mod:`builders.publish.outdone`), if it does not meet today's tolerance, or if an engine of the
    manifest's current weights, cut and preprocessing is verified and it is of others
    (:class:`_Previous`). Replaced engines stay as superseded for :data:`SUPERSEDED_STAYS`, and
    until their replacement is verified.

    Args:
        repository: Where records and attestations are stored.
        candidate: The candidate.
        previous: The current index.
        now: The time.
    """
    model = candidate.card.model
    stored = [(key, repository.record(model, key)) for key in candidate.records]
    current = {key: record for key, record in stored if record is not None}
    entries = _entries(repository, candidate.card, current.values())
    before = _Previous(repository, candidate, previous, entries)
    if (card := before.card()) != candidate.card:
        entries = _entries(repository, card, current.values())
    served = {_cell(label) for entry in entries for label in entry.targets}
    old: list[EngineEntry] = []
    standing = list(before.standing())
    for entry, record, labels in standing:
        left = tuple(label for label in labels if _cell(label) not in served)
        gone = tuple(label for label in labels if _cell(label) in served)
        if entry.superseded is not None:
            if entry.record in current:
                continue
            left, gone = (), labels
        if left:
            entries += engine_entries(repository, card, record, left)
        if gone and entry.record not in current:
            since = entry.superseded or now.strftime(TIME)
            old += [
                superseded.model_copy(update={"superseded": since})
                for superseded in engine_entries(repository, card, record, gone)
            ]
    settled = settle(repository, card, previous, standing, Settled(entries, old))
    entries, old = settled.current, settled.superseded
    cells = list(candidate.disabled)
    taken = served | {_cell(label) for cell in cells for label in cell.targets}
    for cell in previous.disabled if previous else ():
        left = tuple(label for label in cell.targets if _cell(label) not in taken)
        weights = _weights_of(repository, model, cell)
        if left and weights is not None and candidate.weights in (None, weights):
            cells.append(cell.model_copy(update={"targets": left}))
    cells = [rest for cell in cells if (rest := _without_engine(cell, entries))]
    made = ModelIndex(
        **card.model_dump(),
        corrected=history(card, previous, candidate.source, now),
        outdone=tuple(sorted(settled.outdone, key=lambda one: (one.targets, one.record))),
        engines=tuple(sorted([*entries, *still_needed(old, entries, now)], key=_place)),
        disabled=tuple(sorted(cells, key=lambda cell: cell.targets)),
        proposals=previous.proposals if previous else {},
    )
    return carried_over(made, previous)


def _entries(
    repository: Repository, card: ModelCard, records: Iterable[BuildRecord]
) -> list[EngineEntry]:
    return [entry for record in records for entry in engine_entries(repository, card, record)]


class _Previous:
    """The engines of an index that stay in the next one.

    A model stands for one set of weights, cut and preprocessing. If the manifest has changed one of
    them, verified engines of the old ones stay until an engine of the new ones is verified: a
    failed or unverified attempt displaces nothing. After that they leave, because features of two
    kinds must not be served side by side.

    Args:
        repository: Where records and attestations are stored.
        candidate: The candidate.
        index: The current index.
        entries: The entries of the candidate's engines.
    """

    def __init__(
        self,
        repository: Repository,
        candidate: Candidate,
        index: ModelIndex | None,
        entries: Iterable[EngineEntry],
    ) -> None:
        self._repository, self._candidate, self._index = repository, candidate, index
        model = candidate.card.model
        stored = [
            (entry, repository.record(model, entry.record))
            for entry in (index.engines if index else ())
        ]
        known = [(entry, record) for entry, record in stored if record is not None]
        own = [_is_of(repository, record, candidate) for _, record in known]
        verified = any(entry.status == Status.VERIFIED for entry in entries) or any(
            is_own and entry.status == Status.VERIFIED
            for (entry, _), is_own in zip(known, own, strict=True)
        )
        self._engines = [
            (entry, record)
            for (entry, record), is_own in zip(known, own, strict=True)
            if is_own or (not verified and entry.status == Status.VERIFIED)
        ]
        self._is_old = not all(own) and not verified and len(self._engines) > sum(own)

    def card(self) -> ModelCard:
        """Returns the model's card, which describes the engines that are served."""
        card = self._candidate.card
        if not self._is_old or self._index is None:
            return card
        stays = {"weights", "feature_dim", "cut"}
        if card.weights != self._index.weights:
            stays |= {"licence", "origin"}  # the manifest's are those of other weights
        served = self._index.model_dump(include=stays)
        return card.model_copy(update={**served, "preprocess": self._index.preprocess})

    def standing(self) -> Iterator[tuple[EngineEntry, BuildRecord, tuple[str, ...]]]:
        """Yields the engines that stay, with the labels that they stay for."""
        refused = {
            _cell(label): cell
            for cell in self._candidate.disabled
            if cell.replaces_engines
            for label in cell.targets
        }
        for entry, record in self._engines:
            labels = tuple(
                label
                for label in entry.targets
                if (cell := refused.get(_cell(label))) is None
                or stands(self._repository, self._candidate.card, entry, record, cell)
            )
            if labels:
                yield entry, record, labels


def stands(
    repository: Repository,
    card: ModelCard,
    entry: EngineEntry,
    record: BuildRecord,
    cell: DisabledCell,
) -> bool:
    """Whether a published engine stays although no new export of its precision meets the tolerance.

    A verified engine stays if its numbers meet the tolerance that the export missed; one that has
    not been run, if its own export met that tolerance. A withdrawn one does not.

    Args:
        repository: Where the records of exports are stored.
        card: The model.
        entry: The engine.
        record: Its record.
        cell: The failed export.
    """
    failed = repository.failed_export(card.model, cell.record)
    tolerance = _tolerance_of(failed.inputs) if failed is not None else None
    match entry.status:
        case Status.WITHDRAWN:
            return False
        case Status.VERIFIED:
            return tolerance is None or meets(card, entry, tolerance)
        case Status.PENDING:
            export = repository.export(card.model, record.export_key)
            return tolerance is None or (
                export is not None and _tolerance_of(export.inputs) == tolerance
            )
        case _:
            assert_never(entry.status)


def _tolerance_of(inputs: ExportInputs | BuildInputs) -> Tolerance | None:
    """Returns the tolerance that an export had to meet; None if its inputs state none."""
    if not isinstance(inputs, ExportInputs) or inputs.lowering is None:
        return None
    try:
        return Tolerance.model_validate(inputs.lowering.tolerance)
    except ValidationError:
        return None


def without_aged(index: ModelIndex, now: datetime) -> ModelIndex:
    """Returns a model's index without expired superseded engines."""
    old = (entry for entry in index.engines if entry.superseded is not None)
    needed = list(still_needed(old, index.current, now))
    kept = (entry for entry in index.engines if entry.superseded is None or entry in needed)
    return index.model_copy(update={"engines": tuple(kept)})


def still_needed(
    old: Iterable[EngineEntry], current: Iterable[EngineEntry], now: datetime
) -> Iterator[EngineEntry]:
    """Yields superseded engines to keep: for a set time, and until their successor is verified."""
    verified = {
        _cell(label)
        for entry in current
        if entry.status == Status.VERIFIED
        for label in entry.targets
    }
    for entry in old:
        waits = entry.status == Status.VERIFIED and any(
            _cell(label) not in verified for label in entry.targets
        )
        if waits or now - _time(entry.superseded or "") < SUPERSEDED_STAYS:
            yield entry


def _weights_of(repository: Repository, model: str, cell: DisabledCell) -> WeightsIdentity | None:
    """Returns the weights of a disabled cell, None if no failure record names them any more."""
    if not cell.replaces_engines:
        known = [failure.weights for failure in failures_of(repository, model, cell.record)]
        return next((weights for weights in reversed(known) if weights is not None), None)
    failed = repository.failed_export(model, cell.record)
    return failed.of_weights if failed else None


def _without_engine(cell: DisabledCell, current: Iterable[EngineEntry]) -> DisabledCell | None:
    """Returns a disabled cell without the targets that an engine serves; None if none remain."""
    served = {_cell(label) for entry in current for label in entry.targets}
    remaining = tuple(label for label in cell.targets if _cell(label) not in served)
    return cell.model_copy(update={"targets": remaining}) if remaining else None


def _place(entry: EngineEntry) -> tuple[Any, ...]:
    return entry.superseded is not None, entry.targets, entry.record


def _time(text: str) -> datetime:
    return datetime.strptime(text, TIME).replace(tzinfo=timezone.utc)


def _cell(label: str) -> str:
    """Returns a target's label without the suffix for mixed precision."""
    return cell_of(label)


def _is_of(repository: Repository, record: BuildRecord, candidate: Candidate) -> bool:
    """Whether an engine's weights, cut and preprocessing are the manifest's current ones."""
    if candidate.weights is None:
        return True
    export = repository.export(candidate.card.model, record.export_key)
    return (
        export is not None
        and export.inputs.weights == candidate.weights
        and export.inputs.backbone == candidate.backbone
        and record.inputs.preprocess == candidate.card.preprocess.plain
    )
