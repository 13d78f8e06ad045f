"""Failures of engines in earlier runs, and when they are tried again.

An engine that misses its tolerance is not tried again with the same inputs and tolerance. One that
could not be built or run is not tried again after a second night, and one that several workers of a
cluster died of not even once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from typing_extensions import assert_never

from builders.history.attested import Attested
from builders.history.listing import Listing
from zoo.repository.failures import read_failures
from zoo.repository.repository import Repository
from zoo.schema.closed import Unknown
from zoo.schema.floors import Tolerance
from zoo.schema.keys import BuildInputs, WeightsIdentity
from zoo.schema.layout import FAILURES, failures_prefix
from zoo.schema.old_failures import MISSED, STRIKES, OldMiss, missed_key, strikes_prefix
from zoo.schema.records import FailureReason, FailureRecord, FailureStage, Retry
from zoo.util.clock import utc_now

NIGHTS = 2
"""Nights in which an engine may crash before it is no longer tried."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why an engine is not tried again.

    Attributes:
        reason: Why it failed.
        text: The last error, for people.
        times: How often it failed.
    """

    reason: FailureReason
    text: str
    times: int


class Failures:
    """The failure records of engines in a repository.

    Args:
        repository: Where they are stored.
        night: When this nightly run began, ISO 8601 in UTC; None for other runs, whose crashes do
            not count: a maintainer's machine must not disable engines for all.
        now: The clock, for runs that are not nightly.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        night: str | None = None,
        now: Callable[[], str] | None = None,
    ) -> None:
        self.night = night
        self._now = now
        self._repository = repository
        self.listing = Listing(repository)
        self.attested = Attested(self.listing)

    def missed(self, inputs: BuildInputs, tolerance: Tolerance) -> str | None:
        """Returns by what an engine of these inputs missed a tolerance; None if it did not.

        If an engine for several architectures missed it, that counts for each of them.
        """
        floors = tolerance.model_dump(mode="json")
        alone = [inputs]
        if len(inputs.archs) > 1:
            alone = [inputs.model_copy(update={"archs": (arch,)}) for arch in inputs.archs]
        keys = [single.key for single in alone]
        if inputs not in alone:
            keys.insert(0, inputs.key)
        misses = [
            record.text
            for key in keys
            for record in self._of(inputs.model, key)
            if record.reason is FailureReason.TOLERANCE and record.tolerance in (None, floors)
        ]
        if misses:
            return misses[-1]
        old = self.listing.keys(MISSED, f"{MISSED}{inputs.model}/")
        for single in alone if old else ():
            if (key := missed_key(single, floors)) in old:
                record = self._repository.read(key, OldMiss)
                return record.reason if record else None
        return None

    def failed(self, inputs: BuildInputs, tolerance: Tolerance) -> Failed | None:
        """Returns why an engine of these inputs is not tried again; None if it is."""
        if text := self.missed(inputs, tolerance):
            return Failed(reason=FailureReason.TOLERANCE, text=text, times=1)
        floors = tolerance.model_dump(mode="json")
        crashed = [
            record
            for record in self._of(inputs.model, inputs.key)
            if record.reason is FailureReason.CRASHED and record.tolerance in (None, floors)
        ]
        if len(crashed) < NIGHTS and not any(map(_is_final, crashed)):
            return None
        return Failed(reason=FailureReason.CRASHED, text=crashed[-1].text, times=len(crashed))

    def add(
        self,
        inputs: BuildInputs,
        tolerance: Tolerance,
        text: str,
        *,
        stage: FailureStage,
        reason: FailureReason,
        quarantined: bool = False,
        weights: WeightsIdentity | None = None,
        targets: Iterable[str] = (),
    ) -> None:
        """Records that an engine failed, once for a run.

        Args:
            inputs: What it is built from.
            tolerance: The tolerance in force.
            text: What went wrong, for people.
            stage: What failed.
            reason: Why.
            quarantined: Whether several workers died of it: the first time is then the last.
            weights: Its weights.
            targets: Labels of the targets that it was to serve.
        """
        if reason is FailureReason.CRASHED and self.night is None and not quarantined:
            return
        record = FailureRecord(
            stage=stage,
            reason=reason,
            text=text,
            inputs=inputs,
            time=self.night or (self._now or utc_now)(),
            tolerance=tolerance.model_dump(mode="json"),
            weights=weights,
            targets=tuple(targets),
            retry=_retry(reason, quarantined=quarantined),
        )
        for folder in _folders(record):
            key = f"{folder}{record.time.replace(':', '')}-{stage.value}.json"
            self._repository.store.put(key, record.to_json(), if_absent=True)
            self.listing.add(FAILURES, key)

    def _of(self, model: str, key: str) -> list[FailureRecord]:
        """Returns the failures of a build key, oldest first, as of the listing."""
        known = self.listing.keys(FAILURES, failures_prefix(model, key))
        old = self.listing.keys(STRIKES, strikes_prefix(model, key))
        return list(read_failures(self._repository, sorted(known), sorted(old)))


def _retry(reason: FailureReason, *, quarantined: bool) -> Retry:
    """Returns when a failed engine is tried again; a crash counts once a night, twice in all."""
    match reason:
        case FailureReason.TOLERANCE:
            return Retry.OTHER_INPUTS
        case FailureReason.CRASHED:
            return Retry.OTHER_INPUTS if quarantined else Retry.NEXT_NIGHT
        case _:
            assert_never(reason)


def _is_final(record: FailureRecord) -> bool:
    """Whether one crash is enough for an engine not to be tried again with the same inputs."""
    match record.retry:
        case Retry.NEXT_NIGHT | Unknown() | None:
            return False
        case Retry.OTHER_INPUTS:
            return True
        case _:
            assert_never(record.retry)


def _folders(record: FailureRecord) -> list[str]:
    """Returns the folders of a failure: of its key, and for a miss of each architecture alone."""
    inputs = record.inputs
    assert isinstance(inputs, BuildInputs)
    keys = [inputs.key]
    if record.reason is FailureReason.TOLERANCE:
        keys += [inputs.model_copy(update={"archs": (arch,)}).key for arch in inputs.archs]
    return [failures_prefix(inputs.model, key) for key in dict.fromkeys(keys)]
