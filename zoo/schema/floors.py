"""Tolerances that an engine's features must meet to be published, by precision.

The defaults for all models are in ``floors.toml``. A manifest may set a stricter tolerance; a
looser one needs a reason, which the catalog shows.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from zoo.schema.closed import complete
from zoo.schema.precisions import Precision
from zoo.util.toml import toml

if TYPE_CHECKING:
    from collections.abc import Mapping

NEIGHBOURS = 5
"""Number of nearest golden photos that are compared for each golden photo."""

Cosine = Annotated[float, Field(gt=0, le=1)]
RelativeError = Annotated[float, Field(gt=0, lt=1)]
DistanceError = Annotated[float, Field(gt=0, le=0.5)]
Neighbours = Annotated[float, Field(ge=0, le=1)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=600, strip_whitespace=True)]


class Tolerance(BaseModel):
    """The tolerance that an engine's features must meet, image by image, to be published.

    Attributes:
        cosine: Minimum cosine similarity with PyTorch's features.
        relative_error: Maximum ``|y - r| / |r|`` (L2 norms).
        distance_error: Maximum ``|y - r|`` divided by the distance from ``r`` to the features of
            the nearest other photo; at 0.5 two photos could be confused.
        neighbours: Minimum fraction of a photo's five nearest golden photos that remain among its
            five nearest, averaged over a batch.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid", allow_inf_nan=False)

    cosine: Cosine
    relative_error: RelativeError
    distance_error: DistanceError
    neighbours: Neighbours


class OwnTolerance(BaseModel):
    """A manifest's tolerance for a precision; numbers that it omits keep their defaults.

    Attributes:
        reason: Why it is looser than the default, required if it is; shown in the catalog.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid", allow_inf_nan=False)

    cosine: Cosine | None = None
    relative_error: RelativeError | None = None
    distance_error: DistanceError | None = None
    neighbours: Neighbours | None = None
    reason: Reason | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers that it sets."""
        return self.model_dump(exclude={"reason"}, exclude_none=True)

    @model_validator(mode="after")
    def _names_something(self) -> OwnTolerance:
        if not self.numbers:
            raise ValueError("has no values; remove the table to use the default tolerance")
        return self


class _Floors(BaseModel):
    """``zoo/schema/floors.toml``: default tolerances and the linear probe's, by precision."""

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
    """Returns every precision's default tolerance."""
    return complete(Precision, _read().floors)


def probe_fall(precision: Precision) -> float:
    """Returns by how much an engine may lower a linear probe's accuracy, from 0 to 1."""
    return complete(Precision, _read().probe_fall)[precision]


def looser_by(precision: Precision, own: OwnTolerance) -> list[str]:
    """Returns the numbers in which a manifest's tolerance is looser than the default, as text."""
    least: dict[str, float] = floors()[precision].model_dump()
    at_least = ("cosine", "neighbours")
    return [
        f"{name} {value:g} (the floor is {least[name]:g})"
        for name, value in own.numbers.items()
        if (value < least[name] if name in at_least else value > least[name])
    ]


def tolerance(precision: Precision, own: OwnTolerance | None) -> Tolerance:
    """Returns the tolerance of a model's engines of a precision."""
    floor = floors()[precision]
    return floor.model_copy(update=own.numbers) if own else floor
