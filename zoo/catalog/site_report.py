"""The report of a whole site: the models' parts, summarised to stay readable.

After a runtime update, thousands of engines are rebuilt for the same reason and most measurements
stay the same: the report shows that as one entry with a count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field

from zoo.catalog.night import Drift, Part
from zoo.catalog.report import Change, Missing, ModelReport, Newest, Rebuilt
from zoo.schema.targets_table import target_table

NEWEST = 20
"""Number of recent builds listed."""

MOST = 100
"""Number of reasons and of drifts listed; any more are only counted."""

_LEAST_FALL = 1e-5  # smaller differences of a cosine come from the order of summation


class Expected(Part):
    """What a complete repository would hold according to the manifests.

    Attributes:
        precisions: Model to the precisions that its manifest lists; for a model without an entry,
            every precision that the targets table allows is expected.
        absent: Model with nothing in the repository, to the reason why.
    """

    precisions: Mapping[str, tuple[str, ...]] = Field(default={})
    absent: Mapping[str, str] = Field(default={})


class RebuiltTogether(Part):
    """Engines that were rebuilt for the same reason.

    Attributes:
        changed: The inputs that differ.
        engines: The engines, the newest first.
    """

    changed: tuple[Change, ...]
    engines: tuple[Rebuilt, ...]

    @property
    def models(self) -> int:
        """Number of models that they belong to."""
        return len({engine.model for engine in self.engines})


class SiteReport(Part):
    """The report of all models.

    Attributes:
        rebuilt: Rebuilt engines grouped by reason, the newest first.
        more_rebuilt: Number of reasons that are not listed.
        drift: Of each engine and measure, the batch size that got worst; the worst first.
        more_drift: Number of drifts that are not listed.
        missing: Engines that were not built.
        absent: Models with nothing in the repository, by the reason why.
        newest: The most recent builds.
        uncompared: Models with CPU engines none of which was timed beside PyTorch.
    """

    rebuilt: tuple[RebuiltTogether, ...] = ()
    more_rebuilt: int = 0
    drift: tuple[Drift, ...] = ()
    more_drift: int = 0
    missing: tuple[Missing, ...] = ()
    absent: dict[str, tuple[str, ...]] = Field(default={})
    newest: tuple[Newest, ...] = ()
    uncompared: tuple[str, ...] = ()


def same_gaps(missing: Iterable[Missing]) -> list[tuple[tuple[Missing, ...], tuple[str, ...]]]:
    """Returns gaps, each an architecture with its precisions, and the models that have just these.

    The gaps of a group are those of its first model.
    """
    models: dict[str, list[Missing]] = {}
    for gap in sorted(missing, key=lambda gap: gap.model):
        models.setdefault(gap.model, []).append(gap)
    groups: dict[object, list[str]] = {}
    for model, gaps in models.items():
        groups.setdefault(tuple((gap.arch, gap.precisions) for gap in gaps), []).append(model)
    return [(tuple(models[names[0]]), tuple(names)) for names in groups.values()]


def models_by_arch(missing: Iterable[Missing]) -> dict[str, list[str]]:
    """Returns architecture to the models that lack engines for it, in the order of the table."""
    found: dict[str, list[str]] = {arch: [] for arch in target_table().arch}
    for gap in missing:
        found.setdefault(gap.arch, []).append(gap.model)
    return {arch: models for arch, models in found.items() if models}


def combine(parts: Iterable[ModelReport], expected: Expected) -> SiteReport:
    """Combines the models' parts into the report of the site."""
    listed = list(parts)
    groups = _by_reason(engine for part in listed for engine in part.rebuilt)
    drifts = worst_drifts(drift for part in listed for drift in part.drift)
    builds = sorted(
        (build for part in listed for build in part.newest),
        key=lambda build: build.created,
        reverse=True,
    )
    absent: dict[str, tuple[str, ...]] = {}
    for model, why in expected.absent.items():
        absent[why] = (*absent.get(why, ()), model)
    return SiteReport(
        rebuilt=tuple(groups[:MOST]),
        more_rebuilt=max(0, len(groups) - MOST),
        drift=tuple(drifts[:MOST]),
        more_drift=max(0, len(drifts) - MOST),
        missing=tuple(_wanted((gap for part in listed for gap in part.missing), expected)),
        absent=absent,
        newest=tuple(builds[:NEWEST]),
        uncompared=tuple(
            sorted({build.model for part in listed if part.uncompared for build in part.newest})
        ),
    )


def _by_reason(rebuilt: Iterable[Rebuilt]) -> Sequence[RebuiltTogether]:
    groups: dict[object, list[Rebuilt]] = {}
    for engine in sorted(rebuilt, key=lambda engine: engine.created, reverse=True):
        changed = tuple(change.model_dump_json() for change in engine.changed)
        groups.setdefault(changed, []).append(engine)
    return [
        RebuiltTogether(changed=engines[0].changed, engines=tuple(engines))
        for engines in groups.values()
    ]


def worst_drifts(drifts: Iterable[Drift]) -> list[Drift]:
    """Returns, for each engine and measure, the batch size that got worst; the worst first."""
    worst: dict[tuple[str, str, str], Drift] = {}
    for drift in drifts:
        key = drift.record, drift.target, drift.measure
        if key not in worst or _worse_by(drift) > _worse_by(worst[key]):
            worst[key] = drift
    return sorted(worst.values(), key=_worse_by, reverse=True)


def _worse_by(drift: Drift) -> float:
    """Returns by what fraction a measurement got worse; negative if it got better.

    The fraction is that of the latency, also of one relative to PyTorch's, or of the cosine's
    distance from 1.
    """
    if drift.measure == "latency":
        return drift.after / drift.before - 1 if drift.before > 0 else 0.0
    if drift.measure == "ratio":
        return drift.before / drift.after - 1 if drift.after > 0 else 0.0
    fall = drift.before - drift.after
    return fall / max(1 - drift.before, _LEAST_FALL)


def _wanted(missing: Iterable[Missing], expected: Expected) -> Iterable[Missing]:
    for gap in missing:
        listed = expected.precisions.get(gap.model, gap.precisions)
        precisions = tuple(name for name in gap.precisions if name in listed)
        if precisions:
            yield gap.model_copy(update={"precisions": precisions})
