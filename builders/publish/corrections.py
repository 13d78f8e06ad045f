"""Corrected facts: their history in the index, and the documents that they replace.

Build records are immutable and state what was known at the build, as do the LICENSE and NOTICE
stored beside an engine. What is right is in the index: the model's card, and for each engine the
documents that differ from those of its record.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from zoo.repository.repository import Repository
from zoo.schema.corrections import FactChange, ManifestSource
from zoo.schema.documents import documents
from zoo.schema.index import EngineEntry, ModelCard, ModelIndex
from zoo.schema.records import Blob, BuildRecord
from zoo.util.digest import sha256_bytes

TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
"""Format of times: ISO 8601 in UTC."""

_OF_WEIGHTS = ("licence", "origin")


def history(
    card: ModelCard, previous: ModelIndex | None, source: ManifestSource | None, now: datetime
) -> tuple[FactChange, ...]:
    """Returns the history of a model's facts, with those that a card corrects.

    Licence and origin of other weights are no corrections of those of the weights before.

    Args:
        card: The model's new card.
        previous: Its current index.
        source: The manifest that the card was made from.
        now: The time.
    """
    if previous is None:
        return ()
    before, is_other = previous.facts, card.weights != previous.weights
    return (
        *previous.corrected,
        *(
            FactChange(
                fact=fact, before=before[fact], after=after, time=now.strftime(TIME), source=source
            )
            for fact, after in card.facts.items()
            if after != before[fact] and not (is_other and fact in _OF_WEIGHTS)
        ),
    )


def signed_by(index: ModelIndex, previous: ModelIndex | None, signer: str) -> ModelIndex:
    """Returns an index whose new corrections name the key that is about to sign them."""
    known = len(previous.corrected) if previous else 0
    new = (change.model_copy(update={"signer": signer}) for change in index.corrected[known:])
    return index.model_copy(update={"corrected": (*index.corrected[:known], *new)})


def replaced(card: ModelCard, record: BuildRecord) -> dict[str, Blob]:
    """Returns the documents of an engine that its record has with another text, or not at all."""
    right = {
        name: Blob(sha256=sha256_bytes(text), size=len(text))
        for name, text in documents(card, record).items()
    }
    stored = {name: blob.sha256 for name, blob in record.files.items()}
    return {name: blob for name, blob in right.items() if stored.get(name) != blob.sha256}


def store_documents(repository: Repository, index: ModelIndex) -> None:
    """Stores the documents that the entries of an index name, before the index is signed."""
    for entry in _by_record(index.engines):
        record = repository.record(index.model, entry.record)
        assert record is not None
        texts = documents(index.card, record)
        with tempfile.TemporaryDirectory() as scratch:
            for name in entry.documents.keys() & texts.keys():
                path = Path(scratch) / name
                path.write_bytes(texts[name])
                repository.blobs.add(path)


def stated_documents(index: ModelIndex) -> Iterator[tuple[str, Blob]]:
    """Yields name and blob of each document that an index names."""
    for entry in _by_record(index.engines):
        yield from entry.documents.items()


def _by_record(entries: Iterable[EngineEntry]) -> Iterable[EngineEntry]:
    """Returns an entry of each engine that has documents."""
    return {entry.record: entry for entry in entries if entry.documents}.values()
