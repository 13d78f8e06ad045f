"""Decides whether an engine that was verified replaces the verified one that is published (ADR 40).

A change that states something else about the engine always replaces it: other weights, batches or
toolchain. Another attempt at the same engine, with other calibration photos or a newer exporter,
does so unless it is farther from PyTorch by more than noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from pydantic import ValidationError

from builders.publish.entries import engine_entries
from builders.publish.tolerances import meets, stated_tolerance
from zoo.repository.repository import Repository
from zoo.schema.index import (
    EngineEntry,
    ModelCard,
    ModelIndex,
    OutdoneEngine,
    VerificationSummary,
)
from zoo.schema.intervals import median_interval
from zoo.schema.measurements import BatchNumbers
from zoo.schema.records import BuildRecord, Status
from zoo.schema.targets import cell_of

Standing = tuple[EngineEntry, BuildRecord, tuple[str, ...]]
"""An engine of the index before, its record, and the labels that it stays for."""

FARTHER, WORST, LEAST = 1.10, 2.0, 0.002
"""An engine is farther from PyTorch if the errors of the golden photos are this many times as large
(the lower end of the interval of the median ratio), or the worst error is that many times as large;
and if the worst error grew by more than the last number, which is beyond rounding. ADR 40 has the
measurements."""

COSINE_FARTHER, LEAST_FALL = 2.0, 1e-5
"""A worst cosine more than this many times as far from 1, that also fell by more than this much, is
worse: a different order of summation explains less. Nightly runs use the same two numbers for all
engines."""


@dataclass
class Settled:
    """The index entries of a model after each new engine was compared with the published one.

    Attributes:
        current: Entries of the engines that are given out.
        superseded: Entries of those that others replaced.
        outdone: Engines that did not replace the published one.
    """

    current: list[EngineEntry]
    superseded: list[EngineEntry]
    outdone: list[OutdoneEngine] = field(default_factory=list)


def settle(
    repository: Repository,
    card: ModelCard,
    previous: ModelIndex | None,
    standing: Sequence[Standing],
    proposed: Settled,
) -> Settled:
    """Puts published engines back in place of those that are farther from PyTorch.

    Args:
        repository: Where records and attestations are stored.
        card: The model.
        previous: The current index.
        standing: Its engines that stay.
        proposed: The entries if each new engine replaced the published one.
    """
    given_out = _given_out(standing)
    lost: dict[tuple[str, str], list[str]] = {}
    made: list[OutdoneEngine] = []
    for entry in proposed.current:
        for label in entry.targets:
            record = given_out.get(cell_of(label))
            if record is None or record.key == entry.record:
                continue
            published = _entry_for(repository, card, record, cell_of(label))
            if (reason := _why_outdone(repository, card, published, record, entry)) is None:
                continue
            lost.setdefault((entry.record, record.key), []).append(label)
            assert entry.verification is not None
            assert entry.verification.key is not None
            made.append(
                OutdoneEngine(
                    targets=(label,), record=entry.record, engine=entry.engine.sha256,
                    verdict=entry.verification.key, published=record.key, reason=reason,
                )
            )  # fmt: skip
    records = {record.key: record for record in given_out.values()}
    current = list(_without(proposed.current, lost, of_loser=True))
    for (_, key), labels in lost.items():
        cells = set(map(cell_of, labels))
        own = tuple(label for label in records[key].targets if cell_of(label) in cells)
        current += engine_entries(repository, card, records[key], own)
    outdone = [*_joined(made), *_still_outdone(previous, current, made)]
    return Settled(current, list(_without(proposed.superseded, lost, of_loser=False)), outdone)


def _given_out(standing: Sequence[Standing]) -> dict[str, BuildRecord]:
    """Returns the record of the verified engine that clients get for each target.

    A verified engine that was superseded is given out until its successor is verified.
    """
    verified = [one for one in standing if one[0].status is Status.VERIFIED]
    verified.sort(key=lambda one: (one[0].superseded is None, one[0].created))
    return {cell_of(label): record for _, record, labels in verified for label in labels}


def _entry_for(
    repository: Repository, card: ModelCard, record: BuildRecord, cell: str
) -> EngineEntry:
    labels = tuple(label for label in record.targets if cell_of(label) == cell)
    return engine_entries(repository, card, record, labels)[0]


def _why_outdone(
    repository: Repository,
    card: ModelCard,
    published: EngineEntry,
    record: BuildRecord,
    new: EngineEntry,
) -> str | None:
    """Returns why a published engine stays instead of a new one; None if it does not."""
    before, after = published.verification, new.verification
    if published.status is not Status.VERIFIED or new.status is not Status.VERIFIED:
        return None
    if before is None or after is None or after.key is None:
        return None
    other = repository.record(card.model, new.record)
    if other is None or not _are_alike(repository, card.model, record, other):
        return None
    try:
        tolerance = stated_tolerance(after)
    except ValidationError:
        return None
    return farther(before, after) if meets(card, published, tolerance) else None


def _are_alike(repository: Repository, model: str, one: BuildRecord, other: BuildRecord) -> bool:
    """Whether two engines are attempts at the same one, compared with the same features."""
    if one.golden.sha256 != other.golden.sha256:
        return False
    exports = [repository.export(model, record.export_key) for record in (one, other)]
    return (
        one.inputs.specification == other.inputs.specification
        and exports[0] is not None
        and exports[1] is not None
        and exports[0].inputs.specification == exports[1].inputs.specification
    )


def farther(published: VerificationSummary, new: VerificationSummary) -> str | None:
    """Returns by how much a new engine is farther from PyTorch than the published one.

    Compared are the errors of the same golden photos, in the distances between photos, each at its
    worst batch size; so are the worst error and the worst cosine, which the tolerance limits.

    Returns:
        The numbers of both; None if the new one is not farther by more than noise.
    """
    before, after = _errors(published), _errors(new)
    worst_before, worst_after = _worst(published), _worst(new)
    if worst_before is None or worst_after is None or worst_after - worst_before <= LEAST:
        worst_grew = False
    else:
        worst_grew = worst_after > WORST * worst_before
    common = before.keys() & after.keys()
    ratios = [after[photo] / max(before[photo], _TINY) for photo in common]
    interval = median_interval(ratios)
    grew = max((after[photo] - before[photo] for photo in common), default=0.0) > LEAST
    if interval is not None and interval[1] * FARTHER < 1:
        return None  # closer
    if interval is not None and interval[0] > FARTHER and grew:
        text = (
            f"features {median(ratios):.2f} times as far from PyTorch's ({interval[0]:.2f} to "
            f"{interval[1]:.2f}, photo by photo)"
        )
    elif worst_grew:
        text = "features farther from PyTorch's at worst"
    elif (cosines := _fallen(published, new)) is not None:
        return f"features farther from PyTorch's at worst: cosine {cosines}"
    else:
        return None
    if worst_before is None or worst_after is None:
        return text
    return f"{text}: distance error {worst_after:.2g} instead of {worst_before:.2g}"


def cosine_fell(before: float, after: float) -> bool:
    """Whether a worst cosine is worse than another by more than noise."""
    return before - after > LEAST_FALL and 1 - after > COSINE_FARTHER * (1 - before)


def _fallen(published: VerificationSummary, new: VerificationSummary) -> str | None:
    """Returns the worst cosines of two engines if the new one's is worse."""
    before, after = (min(row.worst_cosine for row in one.batches) for one in (published, new))
    return f"{after:.6f} instead of {before:.6f}" if cosine_fell(before, after) else None


_TINY = 1e-6
"""Errors below it are rounding."""


def _errors(verification: VerificationSummary) -> dict[str, float]:
    """Returns the worst distance error of each golden photo; empty if an old record lacks it."""
    errors: dict[str, float] = {}
    for row in verification.batches:
        stated = BatchNumbers.model_validate(row.model_dump()).photos
        for photo, numbers in stated.items():
            if numbers.distance_error is None:
                return {}
            errors[photo] = max(errors.get(photo, 0.0), numbers.distance_error)
    return errors


def _worst(verification: VerificationSummary) -> float | None:
    numbers = [row.worst_distance_error for row in verification.batches]
    known = [number for number in numbers if number is not None]
    return max(known, default=None) if len(known) == len(numbers) else None


def _without(
    entries: Iterable[EngineEntry], lost: dict[tuple[str, str], list[str]], *, of_loser: bool
) -> Iterator[EngineEntry]:
    """Yields entries without the targets that the engine lost, or that it keeps after all."""
    for entry in entries:
        gone = {
            cell_of(label)
            for pair, labels in lost.items()
            if entry.record == pair[0 if of_loser else 1]
            for label in labels
        }
        left = tuple(label for label in entry.targets if cell_of(label) not in gone)
        if left == entry.targets:
            yield entry
        elif left:
            yield entry.model_copy(update={"targets": left})


def _joined(made: Iterable[OutdoneEngine]) -> list[OutdoneEngine]:
    """Joins the targets of an engine that is outdone by the same one for the same reason."""
    joined: dict[str, OutdoneEngine] = {}
    for engine in made:
        key = engine.model_copy(update={"targets": ()}).model_dump_json()
        known = joined.get(key)
        targets = (*(known.targets if known else ()), *engine.targets)
        joined[key] = engine.model_copy(update={"targets": targets})
    return list(joined.values())


def _still_outdone(
    previous: ModelIndex | None, current: Iterable[EngineEntry], made: Iterable[OutdoneEngine]
) -> Iterator[OutdoneEngine]:
    """Yields the engines that the index before lists and that what stayed still outdoes."""
    listed = list(current)
    served = {cell_of(label): entry for entry in listed for label in entry.targets}
    again = {(engine.record, cell_of(label)) for engine in made for label in engine.targets}
    for engine in previous.outdone if previous else ():
        left = tuple(
            label
            for label in engine.targets
            if (engine.record, cell_of(label)) not in again
            and (entry := served.get(cell_of(label))) is not None
            and (entry.record, entry.status) == (engine.published, Status.VERIFIED)
        )
        if left:
            yield engine.model_copy(update={"targets": left})
