"""How features are scaled for a head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from support.caft import identity

from zoo.caft.cache import FeatureCache
from zoo.caft.decode import Decoded
from zoo.caft.rows import standardise
from zoo.caft.sample import Sample
from zoo.caft.writer import CacheWriter


def cache_of(features: npt.NDArray[np.float32], folder: Path) -> FeatureCache:
    writer = CacheWriter(folder, identity(features.shape[1]), "made")
    decoded = [
        Decoded(
            sample=Sample(name=f"{number}", label=None, read=bytes),
            label=None,
            sha256=f"{number:064x}",
        )
        for number in range(len(features))
    ]
    writer.append(decoded, features)
    writer.close(complete=True)
    return FeatureCache(folder)


def scales(images: int, folder: Path) -> npt.NDArray[np.float32]:
    """Scales of features with a deviation of 1, but for the first (0) and the second (0.01)."""
    features = np.random.default_rng(0).standard_normal((images, 64), np.float32)
    features[:, 0] = 3
    features[:, 1] *= 0.01
    _, scale = standardise(cache_of(features, folder), np.arange(images))
    return scale


def test_a_feature_that_hardly_varies_in_a_few_images_does_not_count_for_all(
    tmp_path: Path,
) -> None:
    scale = scales(5, tmp_path / "few")
    assert scale[0] == 0  # never varies
    assert 1 < scale[1] < 3  # as if another image had varied as others do, not 100
    assert scale[2:].max() < 3


def test_of_many_images_the_deviation_decides(tmp_path: Path) -> None:
    images = 100_000
    scale = scales(images, tmp_path / "many")
    assert scale[1] == pytest.approx(1 / np.sqrt(0.01**2 + 1 / images), rel=0.02)
    assert scale[2:] == pytest.approx(np.ones(62), rel=0.02)
