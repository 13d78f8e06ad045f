"""Lists timm's weights by a pattern, and which of them a manifest would make work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from builders.export.anatomy import Anatomies
from builders.export.backbone import import_timm
from builders.export.draft import UNKNOWN_LICENCE, Wishes, draft
from zoo.schema.licences import allowed_licences
from zoo.schema.manifest import Manifest
from zoo.util.errors import ExportError, ManifestError, UsageError
from zoo.util.names import perhaps


@dataclass(frozen=True, kw_only=True)
class Available:
    """Weights that timm knows.

    Attributes:
        name: timm's name.
        licence: Their licence, ``unknown`` if timm states none.
        draft: Their manifest as ``zoo-farm add`` would draft it; None if there can be none.
        model: Id of the manifest that there is already.
        obstacle: Why ``make zoo`` would not build it; empty if nothing is known that stands in the
            way.
    """

    name: str
    licence: str = ""
    draft: Manifest | None = None
    model: str | None = None
    obstacle: str = ""


def names_like(pattern: str) -> list[str]:
    """Returns the names of timm's weights that match a pattern: ``convnext*``.

    Raises:
        UsageError: None do.
    """
    timm = import_timm()
    names: list[str] = timm.list_pretrained(pattern if "." in pattern else f"{pattern}.*")
    if not names:
        near = perhaps(pattern.strip("*"), timm.list_models())
        raise UsageError(
            f"timm has no weights like '{pattern}'.{near}",
            hint="a pattern is of its names, with * for anything: 'convnext*', '*.openai'",
        )
    return sorted(names, key=lambda name: name.partition(".")[0])  # tags stay as timm has them


def examine_all(names: list[str], others: Mapping[str, Manifest]) -> Iterator[Available]:
    """Examines weights, without exporting any.

    Args:
        names: timm's names.
        others: The manifests that there are, by id.
    """
    anatomies, timm = Anatomies(), import_timm()
    models = {other.timm_name: other.id for other in others.values()}
    for name in names:
        licence = (timm.get_pretrained_cfg(name).license or UNKNOWN_LICENCE).lower()
        try:
            manifest = draft(name, Wishes(), others, anatomies).manifest
        except (ExportError, ManifestError) as error:
            reason = error.message.removeprefix(f"{name}: ").removeprefix(f"{name} ")
            yield Available(name=name, licence=licence, obstacle=reason)
            continue
        yield Available(
            name=name,
            licence=licence,
            draft=manifest,
            model=models.get(name),
            obstacle=_obstacle(licence),
        )


def _obstacle(licence: str) -> str:
    if licence == UNKNOWN_LICENCE:
        return "timm states no licence"
    if licence not in allowed_licences():
        return f"{licence} does not allow publishing engines; dry runs work"
    return ""
