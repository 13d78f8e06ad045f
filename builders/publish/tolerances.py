"""Compares the numbers of a published engine with a tolerance."""

from __future__ import annotations

from pydantic import ValidationError

from builders.verify.misses import find_misses
from zoo.schema.closed import Unknown
from zoo.schema.floors import OwnTolerance, Tolerance, looser_by
from zoo.schema.index import EngineEntry, ModelCard, VerificationSummary
from zoo.schema.measurements import BatchNumbers


def stated_tolerance(verification: VerificationSummary) -> Tolerance:
    """Returns the tolerance that an engine was verified with.

    Raises:
        ValidationError: The verification states none, as in old records.
    """
    return Tolerance.model_validate((verification.model_extra or {}).get("tolerance"))


def meets(card: ModelCard, entry: EngineEntry, tolerance: Tolerance) -> bool:
    """Whether the numbers of a verified engine meet a tolerance.

    Not if it was verified with a tolerance that is looser than the zoo's and the manifest no longer
    gives a reason for that: the publisher would refuse it.
    """
    verified, precision = entry.verification, entry.precision
    if verified is None:
        return False
    if isinstance(precision, Unknown):
        return True  # a later version of this package made it: its floors are unknown
    try:
        stated = stated_tolerance(verified)
        is_looser = looser_by(precision, OwnTolerance(**stated.model_dump()))
        misses = [
            miss
            for batch in verified.batches
            for miss in find_misses(BatchNumbers.model_validate(batch.model_dump()), tolerance)
        ]
    except (KeyError, ValidationError):
        return True  # an old record, which does not state every number: it was verified
    return not misses and not (is_looser and precision not in card.own_floors)
