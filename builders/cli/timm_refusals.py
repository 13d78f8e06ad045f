"""The manifests that the installed timm refuses; it is imported only if one is in doubt."""

from __future__ import annotations

from collections.abc import Mapping

from builders.recipe import facts_table
from zoo.schema.manifest import Manifest
from zoo.util.errors import ManifestError


def refused_by_timm(manifests: Mapping[str, Manifest]) -> dict[str, ManifestError]:
    """Returns why timm refuses manifests, by model.

    Its table of facts clears those that agree with it. The others are never refused on its word:
    timm itself is asked, which takes seconds. Where no table has been written yet, nothing is
    asked: the export does so first.

    Args:
        manifests: By model.
    """
    try:
        facts = facts_table.read_table()
    except facts_table.DamagedTableError:
        doubtful = list(manifests.values())
    else:
        doubtful = [
            one for one in manifests.values() if facts and not facts_table.clears(facts, one)
        ]
    if not doubtful:
        return {}
    from builders.export import timm_facts

    refused: dict[str, ManifestError] = {}
    for manifest in doubtful:
        try:
            timm_facts.check_manifest(manifest)
        except ManifestError as error:
            refused[manifest.id] = error
    timm_facts.remember()  # what was damaged, or said something else, is written again
    return refused
