"""LICENSE and NOTICE of an engine, by the facts of its model's card."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.schema.index import ModelCard
from zoo.schema.licences import (
    LICENCE_FILE,
    NOTICE_FILE,
    allowed_licences,
    licence_text,
    notice_text,
)
from zoo.schema.records import BuildRecord


def documents(card: ModelCard, record: BuildRecord) -> Mapping[str, bytes]:
    """Returns LICENSE and NOTICE of an engine by the facts of a card.

    None for random weights, which need no licence, for weights that may not be published, and for
    other weights than those that the card is about.
    """
    is_other = record.weights != card.weights
    if record.dry_run or is_other or card.licence not in allowed_licences():
        return {}
    notice = notice_text(
        title=card.catalog.title,
        model=card.model,
        licence=card.licence,
        origin=card.origin,
        weights=record.weights,
    )
    return {LICENCE_FILE: licence_text(card.licence).encode(), NOTICE_FILE: notice.encode()}
