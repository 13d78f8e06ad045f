"""Manifests agree with timm."""

from __future__ import annotations

import pytest
from support.paths import MANIFESTS

from builders.export.backbone import import_timm
from zoo.schema.manifest import (
    HubWeights,
    Manifest,
)


@pytest.mark.parametrize("name", sorted(path.stem for path in MANIFESTS.glob("*.toml")))
def test_preprocessing_is_timms(name: str, manifests: dict[str, Manifest]) -> None:
    manifest = manifests[name]
    config = import_timm().get_pretrained_cfg(manifest.timm_name)
    ours = manifest.preprocess
    is_test = ours.size_of == "test"
    size = config.test_input_size if is_test else config.input_size
    assert (3, ours.input_size, ours.input_size) == size
    assert ours.crop == (config.test_crop_pct or config.crop_pct if is_test else config.crop_pct)
    assert ours.interpolation == config.interpolation
    assert (ours.mean, ours.std) == (config.mean, config.std)
    assert config.crop_mode == "center"
    assert manifest.licence == config.license
    if isinstance(manifest.weights, HubWeights):
        assert manifest.weights.repository == config.hf_hub_id
