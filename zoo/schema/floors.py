"""Tolerances that an engine's features must meet to be published, by precision.

The defaults for all models are in ``floors.toml``. A manifest may set a stricter tolerance; a
looser one needs a reason, which the catalog shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from zoo.schema.closed import complete
from zoo.schema.precisions import Precision
from zoo.util.strenum import StrEnum
from zoo.util.toml import toml

if TYPE_CHECKING:
    from collections.abc import Mapping

NEIGHBOURS = 5
"""Number of nearest golden photos that are compared for each golden photo."""

_ROUNDED_UP = 1 + 1e-9

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

    def scaled(self, share: float) -> Tolerance:
        """Returns the tolerance for calibration images.

        Args:
            share: The share of each permitted difference that they may use up.
        """
        numbers: dict[str, float] = self.model_dump()
        return Tolerance(
            **{name: LIMITS[name].scaled(value, share) for name, value in numbers.items()}
        )


class Style(StrEnum):
    """How a number is printed.

    Attributes:
        COSINE: With six digits, truncated.
        ERROR: With two significant digits.
        SHARE: As a percentage.
    """

    COSINE = "cosine"
    ERROR = "error"
    SHARE = "share"


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A number of :class:`Tolerance`.

    Attributes:
        measured: The field of :class:`~zoo.schema.measurements.BatchNumbers` that must meet it.
        title: Heading of its column in the catalog.
        style: How it is printed there.
        is_minimum: Whether larger is better.
        for_calibration: Whether calibration images have to meet it.
        grain: Share of the number that one comparison decides in a batch of one image. One may go
            wrong in any batch: the next number below "all five neighbours" is 80%.
        miss: How a miss is described, with ``number``, ``limit`` and ``row``, the worst row.
    """

    measured: str
    title: str
    style: Style
    is_minimum: bool = False
    for_calibration: bool = True
    grain: float = 0.0
    miss: str

    def met_by(self, number: float, limit: float, batch: int | None = None) -> bool:
        """Whether a number meets the limit; NaN does not.

        Args:
            number: What was measured.
            limit: The least or the most that is allowed.
            batch: The number of images that it was measured on; None compares two limits.
        """
        if not self.is_minimum:
            return number <= limit
        forgiven = self.grain / batch if batch else 0.0
        return number >= limit - forgiven * _ROUNDED_UP

    def scaled(self, limit: float, share: float) -> float:
        """Returns the limit for calibration images, which may use up a share of it."""
        if not self.for_calibration:
            return 0.0 if self.is_minimum else float("inf")
        return 1 - share * (1 - limit) if self.is_minimum else share * limit


LIMITS: Mapping[str, Limit] = {
    "cosine": Limit(
        measured="worst_cosine",
        title="Worst cosine",
        style=Style.COSINE,
        is_minimum=True,
        miss="row {row} has cosine {number:.6f}, at least {limit} is needed",
    ),
    "relative_error": Limit(
        measured="worst_relative_error",
        title="Worst relative error",
        style=Style.ERROR,
        miss="relative error {number:.3g}, at most {limit} is allowed",
    ),
    "distance_error": Limit(
        measured="worst_distance_error",
        title="Worst distance error",
        style=Style.ERROR,
        miss="distance error {number:.3g}, at most {limit} is allowed",
    ),
    "neighbours": Limit(
        measured="neighbours",
        title="Neighbours kept",
        style=Style.SHARE,
        is_minimum=True,
        grain=1 / NEIGHBOURS,
        for_calibration=False,  # one crop of each photo: too few to have neighbours
        miss="{number:.0%} of the nearest photos remain the nearest, at least {limit:.0%} is "
        "needed",
    ),
}
"""The numbers of :class:`Tolerance`, in the order in which misses are listed."""


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


def _check_fields() -> None:
    """Raises TypeError, at import, if a class lacks a number or the table a row."""
    for model, others in ((Tolerance, set[str]()), (OwnTolerance, {"reason"})):
        numbers = set(model.model_fields) - others
        if different := sorted(numbers ^ set(LIMITS)):
            raise TypeError(
                f"{model.__name__} and LIMITS must have the same numbers: {', '.join(different)}"
            )


_check_fields()


class _Floors(BaseModel):
    """``zoo/schema/floors.toml``: default tolerances and the linear probe's, by precision."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid", allow_inf_nan=False)

    floors: dict[Precision, Tolerance]
    probe_fall: dict[Precision, Annotated[float, Field(ge=0, lt=1)]]


@cache
def _read() -> _Floors:
    text = Path(__file__).with_name("floors.toml").read_text(encoding="utf-8")
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
    return [
        f"{name} {value:g} (the floor is {least[name]:g})"
        for name, value in own.numbers.items()
        if not LIMITS[name].met_by(value, least[name])
    ]


def tolerance(precision: Precision, own: OwnTolerance | None) -> Tolerance:
    """Returns the tolerance of a model's engines of a precision."""
    floor = floors()[precision]
    return floor.model_copy(update=own.numbers) if own else floor
