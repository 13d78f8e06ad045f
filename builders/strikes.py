"""Strikes: an engine that fails in two nights with the same inputs is not tried a third time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from builders.plan import Wanted
from zoo.errors import JobError, NotRunError, VerificationError, ZooError
from zoo.index import DisabledCell
from zoo.key import BuildInputs
from zoo.layout import strikes_prefix
from zoo.record import ExportRecord, Strike
from zoo.repository import Repository
from zoo.tolerance import Tolerance

STRIKES = 2
"""How many nights an engine has to fail before its cell is disabled."""

_FAILED = "failed "


class DisabledCellError(ZooError):
    """An engine that has failed often enough; caught by the farm, which disables its cell.

    Args:
        cell: What the index is to say.
        hint: How to see the failure again.
    """

    exit_code = VerificationError.exit_code

    def __init__(self, cell: DisabledCell, hint: str | None = None) -> None:
        super().__init__(cell.reason, hint=hint)
        self.cell = cell


def strikes_of(
    repository: Repository, model: str, key: str, tolerance: Tolerance | None = None
) -> list[Strike]:
    """Returns how often an engine of a build key failed, oldest first.

    Args:
        repository: Where it is written down.
        model: Whose engine.
        key: The build key.
        tolerance: The floors that it is held to now: failures under others do not count.
    """
    floors = tolerance and tolerance.model_dump(mode="json")
    listed = repository.store.list(strikes_prefix(model, key))
    found = [one for entry in listed if (one := repository.read(entry.key, Strike))]
    return [one for one in found if None in (floors, one.tolerance) or one.tolerance == floors]


def add_strike(repository: Repository, strike: Strike) -> None:
    """Appends that an engine failed; once for a run."""
    prefix = strikes_prefix(strike.inputs.model, strike.inputs.key)
    key = f"{prefix}{strike.time.replace(':', '')}.json"
    repository.store.put(key, strike.to_json(), if_absent=True)


class Strikes:
    """Counts failures in a repository.

    Args:
        repository: Where they are written down.
        night: When this run began, ISO 8601 in UTC; None for a run that counts nothing: a
            maintainer who tries something twice disables nothing.
        retry: Whether to try again what is disabled.
    """

    def __init__(
        self, repository: Repository, *, night: str | None = None, retry: bool = False
    ) -> None:
        self._repository = repository
        self._night = night
        self._retry = retry

    @contextmanager
    def watch(
        self, build: BuildInputs, wanted: Wanted, export: ExportRecord, tolerance: Tolerance
    ) -> Iterator[None]:
        """Watches the building and proving of one engine.

        Raises:
            DisabledCellError: It is disabled, or fails now for the last time.
        """
        known = strikes_of(self._repository, build.model, build.key, tolerance)
        if len(known) >= STRIKES and not self._retry:
            raise DisabledCellError(_cell(build, wanted, known))
        try:
            yield
        except NotRunError:
            raise  # it says nothing of the engine
        except (JobError, VerificationError) as error:
            if self._night is None:
                raise
            strike = Strike(
                inputs=build,
                weights=export.inputs.weights,
                targets=tuple(map(str, wanted.targets)),
                reason=error.message,
                time=self._night,
                tolerance=tolerance.model_dump(mode="json"),
            )
            add_strike(self._repository, strike)
            known = strikes_of(self._repository, build.model, build.key, tolerance)
            if len(known) < STRIKES:
                raise
            raise DisabledCellError(_cell(build, wanted, known), error.hint) from error


def is_struck(reason: str) -> bool:
    """Whether a cell's reason is that its engine failed too often."""
    return reason.startswith(_FAILED)


def _cell(build: BuildInputs, wanted: Wanted, known: list[Strike]) -> DisabledCell:
    return DisabledCell(
        targets=tuple(map(str, wanted.targets)),
        precision=build.precision,
        reason=f"{_FAILED}{len(known)} times: {known[-1].reason}",
        record=build.key,
        stage="build",
    )
