"""Tolerances: what an engine's features must keep to be published, by precision.

The floors are in ``floors.toml``, one file for all models. A manifest may be stricter as it likes;
where it is looser it says why, and the catalog shows that.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from zoo.schema.closed import complete
from zoo.schema.precisions import Precision
from zoo.util.toml import toml

if TYPE_CHECKING:
    from collections.abc import Mapping

NEIGHBOURS = 5
"""How many of a photo's nearest other golden photos are compared."""

Cosine = Annotated[float, Field(gt=0, le=1)]
RelativeError = Annotated[float, Field(gt=0, lt=1)]
DistanceError = Annotated[float, Field(gt=0, le=0.5)]
Neighbours = Annotated[float, Field(ge=0, le=1)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=600, strip_whitespace=True)]


class Tolerance(BaseModel):
    """What an engine's features must keep to, row by row, to be published.

    Attributes:
        cosine: Least cosine similarity of a row with PyTorch's.
        relative_error: Most ``|y - r| / |r|`` (L2 norms) of a row.
        distance_error: Most ``|y - r|`` over the distance from ``r`` to the nearest other photo's
            features: at 0.5 two photos could be taken for each other.
        neighbours: Least share of a photo's five nearest other golden photos that stay among its
            five nearest, the mean over a batch.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid", allow_inf_nan=False)

    cosine: Cosine
    relative_error: RelativeError
    distance_error: DistanceError
    neighbours: Neighbours


class OwnTolerance(BaseModel):
    """Where a manifest leaves the floors of a precision; what it does not name stays.

    Attributes:
        reason: Why it is looser. Needed where it is; shown in the catalog.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid", allow_inf_nan=False)

    cosine: Cosine | None = None
    relative_error: RelativeError | None = None
    distance_error: DistanceError | None = None
    neighbours: Neighbours | None = None
    reason: Reason | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers that it names."""
        return self.model_dump(exclude={"reason"}, exclude_none=True)

    @model_validator(mode="after")
    def _names_something(self) -> OwnTolerance:
        if not self.numbers:
            raise ValueError("names no number: leave the table out to keep the floors")
        return self


class _Floors(BaseModel):
    """``zoo/schema/floors.toml``: a table for each precision, with a linear probe's share."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid", allow_inf_nan=False)

    floors: dict[Precision, Tolerance]
    probe_fall: dict[Precision, Annotated[float, Field(ge=0, lt=1)]]


@cache
def _read() -> _Floors:
    text = files("zoo.schema").joinpath("floors.toml").read_text(encoding="utf-8")
    tables = toml.loads(text)
    probe_fall = tables.pop("probe_fall")
    return _Floors.model_validate({"floors": tables, "probe_fall": probe_fall})


@cache
def floors() -> Mapping[Precision, Tolerance]:
    """Returns every precision's tolerance."""
    return complete(Precision, _read().floors)


def probe_fall(precision: Precision) -> float:
    """Returns the accuracy that a linear probe on an engine's features may lose, of 1."""
    return complete(Precision, _read().probe_fall)[precision]


def looser_by(precision: Precision, own: OwnTolerance) -> list[str]:
    """Says in which numbers a manifest asks for less than the floors."""
    least: dict[str, Any] = floors()[precision].model_dump()
    at_least = ("cosine", "neighbours")
    return [
        f"{name} {value:g} (the floor is {least[name]:g})"
        for name, value in own.numbers.items()
        if (value < least[name] if name in at_least else value > least[name])
    ]


def tolerance(precision: Precision, own: OwnTolerance | None) -> Tolerance:
    """Returns what a model's engines of a precision must keep."""
    floor = floors()[precision]
    return floor.model_copy(update=own.numbers) if own else floor
