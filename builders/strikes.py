"""Strikes: what failed before with the same inputs is not tried for ever.

An engine that missed its floors, with no stricter network to be had, is not tried again; one that
could not be built or run, not after a second night.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from builders.order import Order
from builders.publish import utc_now
from zoo.errors import JobError, MissError, NotRunError, VerificationError, ZooError
from zoo.index import DisabledCell
from zoo.layout import strikes_prefix
from zoo.record import Strike
from zoo.repository import Repository
from zoo.tolerance import Tolerance

STRIKES = 2
"""How many nights an engine has to fail, its floors aside, before its cell is disabled."""

_FAILED = "failed "
_MISSED = "missed its floors, "


class DisabledCellError(ZooError):
    """An engine that is not tried again; caught by the farm, which disables its cell.

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


def why_disabled(known: Sequence[Strike]) -> str | None:
    """Returns why an engine with these strikes is not tried again, None where it is."""
    if misses := [one for one in known if one.missed]:
        return f"{_MISSED}{misses[-1].reason}"
    return f"{_FAILED}{len(known)} times: {known[-1].reason}" if len(known) >= STRIKES else None


def add_strike(repository: Repository, strike: Strike) -> None:
    """Appends that an engine failed; once for a run."""
    prefix = strikes_prefix(strike.inputs.model, strike.inputs.key)
    key = f"{prefix}{strike.time.replace(':', '')}.json"
    repository.store.put(key, strike.to_json(), if_absent=True)


class Strikes:
    """Counts failures in a repository.

    Args:
        repository: Where they are written down.
        night: When this run began, ISO 8601 in UTC; None for a run that counts no trouble: a
            maintainer whose builds fail twice disables nothing.
        retry: Whether to try again what is disabled.
    """

    def __init__(
        self, repository: Repository, *, night: str | None = None, retry: bool = False
    ) -> None:
        self._retry = retry
        self._repository = repository
        self._night = night

    @contextmanager
    def watch(self, order: Order, missed: str | None = None) -> Iterator[None]:
        """Watches the building and proving of one engine.

        Args:
            order: The engine.
            missed: What one of these inputs is known to have missed, for more GPUs say.

        Raises:
            DisabledCellError: It is disabled, or fails now for the last time.
            MissError: It misses its floors; whether that is the end of it is for :meth:`miss`.
        """
        if not self._retry and (cell := self._cell(order)):
            raise DisabledCellError(cell)
        if not self._retry and missed:
            raise DisabledCellError(self.miss(order, MissError(missed)))
        try:
            yield
        except (MissError, NotRunError):
            raise  # a stricter network may do; or it says nothing of the engine
        except (JobError, VerificationError) as error:
            if self._night is None:
                raise
            self._add(order, error)
            if cell := self._cell(order):
                raise DisabledCellError(cell, error.hint) from error
            raise

    def miss(self, order: Order, error: MissError) -> DisabledCell:
        """Writes down that an engine missed its floors, with nothing stricter to be tried.

        Returns:
            What the index is to say.
        """
        self._add(order, error)
        cell = self._cell(order)
        assert cell is not None
        return cell

    def _add(self, order: Order, error: ZooError) -> None:
        strike = Strike(
            inputs=order.inputs,
            weights=order.export.inputs.weights,
            targets=tuple(map(str, order.wanted.targets)),
            reason=error.message,
            time=self._night or utc_now(),
            tolerance=order.tolerance.model_dump(mode="json"),
            missed=isinstance(error, MissError),
        )
        add_strike(self._repository, strike)

    def _cell(self, order: Order) -> DisabledCell | None:
        """Returns the cell of an engine that is not tried again, None where it is."""
        build = order.inputs
        known = strikes_of(self._repository, build.model, build.key, order.tolerance)
        reason = why_disabled(known)
        if reason is None:
            return None
        return DisabledCell(
            targets=tuple(map(str, order.wanted.targets)),
            precision=build.precision,
            reason=reason,
            record=build.key,
            stage="build",
        )


def is_struck(reason: str) -> bool:
    """Whether a cell's reason is what its engine did, not what an ONNX would."""
    return reason.startswith((_FAILED, _MISSED))
