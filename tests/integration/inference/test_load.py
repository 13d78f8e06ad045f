"""Loading from a real repository, and images that are tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.caft import photo, toy
from support.goldens import assert_golden, raises_golden
from support.make_farm import Farm
from support.models import LITE

import zoo
from zoo.inference.extractor import Extractor
from zoo.inference.preprocess import batch_of
from zoo.runtime.cuda import device_view
from zoo.util.errors import RunError, UsageError


def test_a_tensor_gives_the_features_of_its_photos() -> None:
    torch = pytest.importorskip("torch")
    images = [photo(number) for number in range(18)]  # more than the engine's largest batch
    with toy() as extractor:
        ready = batch_of(images, extractor.preprocess)
        expected = extractor.session.features(ready)
        assert np.allclose(extractor(torch.from_numpy(ready)), expected, atol=1e-6)


def test_a_tensor_in_the_hosts_memory_is_a_sentence() -> None:
    torch = pytest.importorskip("torch")
    with raises_golden(RunError, "inference/host-memory") as caught:
        device_view(torch.zeros(1, 3, 32, 32), 0)
    assert ".numpy()" in str(caught.value)


def test_load_finds_the_engine_and_says_why(
    farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_STORE", str(farm.store))
    monkeypatch.setenv("ZOO_HOME", farm.trusted_in(tmp_path)["ZOO_HOME"])
    said: list[str] = []
    with zoo.load(LITE, report=said.append) as extractor:
        assert isinstance(extractor, Extractor)
        assert extractor.feature_dim == 1280
        assert extractor.record.targets == ("cpu-ort1.32-fp32",)
        assert extractor.preprocess.input_size == 224
        features = extractor([photo(1, (300, 240)), photo(2, (240, 300))])
        with pytest.raises(RunError, match="NoneType"):
            extractor(None)
    assert features.shape == (2, 1280)
    assert " cpu" in said[0] == extractor.why
    with pytest.raises(RunError) as closed:
        extractor([photo(1, (300, 240))])
    assert_golden("inference/closed", closed.value)
    with pytest.raises(UsageError, match="'efficientnet_lite0'"):
        zoo.load("efficientnet_lite")
