"""What the installed timm states about a tag, and the check of a manifest against it."""

from __future__ import annotations

from functools import cache
from typing import Any

from builders.export.backbone import check_names, import_timm
from builders.recipe import facts_table
from builders.recipe.pretrained import PretrainedFacts, check_facts
from zoo.schema.manifest import HubWeights, Manifest
from zoo.util.errors import ManifestError
from zoo.util.installed_versions import version


def check_manifest(manifest: Manifest) -> None:
    """Checks a manifest against the installed timm.

    Raises:
        ManifestError: timm has no such architecture or tag, the manifest differs without a reason,
            or it names no tag for the weights of one.
    """
    timm = import_timm()
    check_names(manifest)
    if manifest.tag:
        config = timm.get_pretrained_cfg(manifest.timm_name)
        check_facts(manifest, facts_of(config), version("timm"))
        return
    _check_untagged(manifest, timm)
    check_facts(manifest, None, version("timm"))


def remember() -> None:
    """Writes the facts of all tags to the table that planning reads, unless it has them."""
    if facts_table.table_path() is None:
        return
    facts_table.write_table(_all_facts())


@cache
def _all_facts() -> dict[str, PretrainedFacts]:
    """Returns the facts of all tags by name; asking timm takes half a second."""
    timm = import_timm()
    configs = (timm.get_pretrained_cfg(name) for name in timm.list_pretrained())
    return {fact.name: fact for fact in map(facts_of, filter(None, configs))}


def _check_untagged(manifest: Manifest, timm: Any) -> None:
    """Raises ManifestError if the weights are those of a tag that the manifest does not name."""
    if not isinstance(manifest.weights, HubWeights):
        return
    for name in timm.list_pretrained(f"{manifest.arch}.*"):
        if timm.get_pretrained_cfg(name).hf_hub_id == manifest.weights.repository:
            tag = name.partition(".")[2]
            raise ManifestError(
                f"{manifest.id}: tag: empty, but weights.repository is that of {name}",
                hint=f'write tag = "{tag}": its preprocessing and licence are then checked',
            )


def facts_of(config: Any) -> PretrainedFacts:
    """Returns what a ``pretrained_cfg`` of timm states."""
    name = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    test_size = config.test_input_size
    return PretrainedFacts(
        name=name,
        input_size=config.input_size[1:],
        test_input_size=test_size[1:] if test_size else None,
        fixed_size=bool(config.fixed_input_size),
        crop=config.crop_pct,
        test_crop=config.test_crop_pct,
        crop_mode=config.crop_mode,
        interpolation=config.interpolation,
        mean=config.mean,
        std=config.std,
        licence=config.license.lower() if config.license else None,
        repository=config.hf_hub_id or None,
    )
