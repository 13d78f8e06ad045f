"""Reads the failure records of a build key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zoo.repository.repository import Repository
from zoo.schema.layout import failures_prefix
from zoo.schema.old_failures import OldStrike, strikes_prefix
from zoo.schema.records import FailureRecord


def failures_of(repository: Repository, model: str, key: str) -> list[FailureRecord]:
    """Returns the failures of a build key, the oldest first."""
    current, old = (
        sorted(entry.key for entry in repository.store.list(prefix))
        for prefix in (failures_prefix(model, key), strikes_prefix(model, key))
    )
    return list(read_failures(repository, current, old))


def read_failures(
    repository: Repository, current: Iterable[str], old: Iterable[str]
) -> Iterator[FailureRecord]:
    """Yields the records stored at these keys, in this order; missing ones are skipped.

    Args:
        repository: Where they are stored.
        current: Keys of records of today's format.
        old: Keys of records of the earlier format (:mod:`zoo.schema.old_failures`); yielded first.
    """
    for key in old:
        if (strike := repository.read(key, OldStrike)) is not None:
            yield strike.failure()
    for key in current:
        if (record := repository.read(key, FailureRecord)) is not None:
            yield record
