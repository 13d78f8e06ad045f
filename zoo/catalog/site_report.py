"""The report of a whole site: what models add to it, put together so that it stays readable.

After an update of a runtime thousands of engines are new for one reason, and most numbers are what
they were: that is one entry and a count, not thousands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field

from zoo.catalog.night import Drift, Part
from zoo.catalog.report import Change, Missing, ModelReport, Newest, Rebuilt

NEWEST = 20
"""Builds that are listed as the newest."""

MOST = 100
"""Reasons and drifts that are listed; of more, it is said how many."""

_LEAST_FALL = 1e-5  # of a cosine: less is what another order of summation does


class Expected(Part):
    """What manifests say that there could be.

    Attributes:
        precisions: Model to those that its manifest lists; of others, all that the table has count.
        absent: Model that the repository has nothing of, to the reason why.
    """

    precisions: Mapping[str, tuple[str, ...]] = Field(default={})
    absent: Mapping[str, str] = Field(default={})


class RebuiltTogether(Part):
    """Engines that took the place of others for one reason.

    Attributes:
        changed: What differs in what went in.
        engines: The newest first.
    """

    changed: tuple[Change, ...]
    engines: tuple[Rebuilt, ...]

    @property
    def models(self) -> int:
        """Of how many models they are."""
        return len({one.model for one in self.engines})


class SiteReport(Part):
    """The report of all models.

    Attributes:
        rebuilt: By reason, the newest first.
        more_rebuilt: Reasons that are not listed.
        drift: Of each engine and measure the batch where it is worst, the worst first.
        more_drift: How many are not listed.
        missing: What nobody has built.
        absent: Why there is nothing of some models: reason to their names.
        newest: The newest builds.
    """

    rebuilt: tuple[RebuiltTogether, ...] = ()
    more_rebuilt: int = 0
    drift: tuple[Drift, ...] = ()
    more_drift: int = 0
    missing: tuple[Missing, ...] = ()
    absent: dict[str, tuple[str, ...]] = Field(default={})
    newest: tuple[Newest, ...] = ()


def combine(parts: Iterable[ModelReport], expected: Expected) -> SiteReport:
    """Puts the reports of models together."""
    listed = list(parts)
    groups = _by_reason(one for part in listed for one in part.rebuilt)
    drifts = worst_drifts(one for part in listed for one in part.drift)
    builds = sorted(
        (one for part in listed for one in part.newest), key=lambda one: one.created, reverse=True
    )
    absent: dict[str, tuple[str, ...]] = {}
    for model, why in expected.absent.items():
        absent[why] = (*absent.get(why, ()), model)
    return SiteReport(
        rebuilt=tuple(groups[:MOST]),
        more_rebuilt=max(0, len(groups) - MOST),
        drift=tuple(drifts[:MOST]),
        more_drift=max(0, len(drifts) - MOST),
        missing=tuple(_wanted((one for part in listed for one in part.missing), expected)),
        absent=absent,
        newest=tuple(builds[:NEWEST]),
    )


def _by_reason(rebuilt: Iterable[Rebuilt]) -> Sequence[RebuiltTogether]:
    groups: dict[object, list[Rebuilt]] = {}
    for one in sorted(rebuilt, key=lambda one: one.created, reverse=True):
        changed = tuple(change.model_dump_json() for change in one.changed)
        groups.setdefault(changed, []).append(one)
    return [
        RebuiltTogether(changed=engines[0].changed, engines=tuple(engines))
        for engines in groups.values()
    ]


def worst_drifts(drifts: Iterable[Drift]) -> list[Drift]:
    """Returns of each engine and measure the batch where it is worst, the worst first."""
    worst: dict[tuple[str, str, str], Drift] = {}
    for one in drifts:
        key = one.record, one.target, one.measure
        if key not in worst or _worse_by(one) > _worse_by(worst[key]):
            worst[key] = one
    return sorted(worst.values(), key=_worse_by, reverse=True)


def _worse_by(one: Drift) -> float:
    """Returns by what share a number is worse than the one before; negative where it is better.

    A latency counts by itself, a cosine by how far it is from 1.
    """
    if one.measure == "latency":
        return one.after / one.before - 1 if one.before > 0 else 0.0
    fall = one.before - one.after
    return fall / max(1 - one.before, _LEAST_FALL)


def _wanted(missing: Iterable[Missing], expected: Expected) -> Iterable[Missing]:
    for one in missing:
        listed = expected.precisions.get(one.model, one.precisions)
        precisions = tuple(name for name in one.precisions if name in listed)
        if precisions:
            yield one.model_copy(update={"precisions": precisions})
