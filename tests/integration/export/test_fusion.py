"""Networks with parallel branches are fused before they are exported."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from support.records import backbone_cut
from torch import nn

from builders import weights
from builders.export import backbone, fusion
from builders.export.backbone import Backbone, import_timm
from builders.export.fp32 import Fp32Export, export_fp32
from builders.photos import bundled
from builders.recipe.export_form import DIALECTS, FUSION, Form, export_inputs
from builders.weights.mode import WeightsMode
from zoo.inference.preprocess import normalise
from zoo.schema.manifest import Manifest
from zoo.schema.precisions import Precision
from zoo.util.errors import ExportError


def toy() -> nn.Module:
    """Returns a RepVGG of two stages with a few channels."""
    import_timm()
    from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg

    torch.manual_seed(0)
    blocks = tuple(ByoBlockCfg(type="rep", d=2, c=channels, s=2, gs=0) for channels in (8, 16))
    model: nn.Module = ByobNet(
        ByoModelCfg(blocks=blocks, stem_type="rep", stem_chs=8), num_classes=4
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


@pytest.fixture
def manifest(manifests: dict[str, Manifest]) -> Manifest:
    base = manifests["resnet50"]
    return base.model_copy(
        update={
            "id": "toy",
            "backbone": backbone_cut(cut="pooled", feature_dim=16),
            "preprocess": base.preprocess.model_copy(update={"input_size": 64}),
            "deviations": {"input_size": "a test"},
        }
    )


def golden(manifest: Manifest, network: Backbone) -> tuple[Any, Any]:
    images = bundled.golden_photos(manifest.preprocess)
    batch = torch.from_numpy(normalise(images, manifest.preprocess.plain))
    with torch.inference_mode():
        return images, network(batch).numpy()


def test_the_fused_network_has_the_same_features_and_fewer_parameters(manifest: Manifest) -> None:
    network = Backbone(toy(), manifest.backbone)
    images, features = golden(manifest, network)
    fused = fusion.fuse(manifest, network, images, features)
    assert fused is not None
    again = golden(manifest, fused.backbone)[1]
    assert np.abs(again - features).max() < 1e-4 * np.abs(features).max()
    check = fused.check
    assert check.worst_relative_error is not None
    assert check.worst_relative_error < 1e-4
    assert check.parameters is not None
    assert check.parameters_before is not None
    assert check.parameters < check.parameters_before
    assert fusion.can_fuse(network.model)  # it is a copy that is fused
    assert np.array_equal(golden(manifest, network)[1], features)


def test_a_network_without_branches_is_left_alone(manifest: Manifest) -> None:
    network = Backbone(import_timm().create_model("test_resnet"), manifest.backbone)
    assert fusion.fuse(manifest, network, np.zeros(0, np.uint8), np.zeros(0, np.float32)) is None


def test_a_fused_network_that_differs_is_refused(manifest: Manifest) -> None:
    network = Backbone(toy(), manifest.backbone)
    images, features = golden(manifest, network)
    with pytest.raises(ExportError) as refused:
        fusion.fuse(manifest, network, images, features[:, ::-1].copy())
    assert refused.value.exit_code == 6
    assert "cosine" in refused.value.message
    assert "toy" in refused.value.message


def export(
    manifest: Manifest, output: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> Fp32Export:
    """Exports a network with seeded weights, in place of the manifest's."""
    monkeypatch.setattr(backbone, "create", lambda of: model)
    job: Any = SimpleNamespace(
        manifest=manifest, weights=SimpleNamespace(seeded=True), state=None,
        inputs={"fp32": SimpleNamespace(dialect=DIALECTS["dynamo-20"])},
    )  # fmt: skip
    output.mkdir()
    workspace: Any = SimpleNamespace(output=output)
    return export_fp32(job, workspace, lambda done, note: None)


def test_what_is_exported_is_fused_and_the_record_says_so(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = export(manifest, tmp_path / "fused", toy(), monkeypatch)
    assert made.check.fusion is not None
    assert made.check.worst_cosine > 0.9999
    graph = onnx.load(tmp_path / "fused" / "fp32.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Conv") == 5  # the stem, and two blocks in each stage
    assert "Add" not in kinds
    assert "fusion" in made.check.model_dump(mode="json")


def key(manifest: Manifest, arch: str) -> dict[str, Any]:
    changed = manifest.model_copy(update={"arch": arch})
    identity = weights.identify(changed, WeightsMode.SEEDED)
    form = Form(dialect="dynamo-20", precision=Precision.FP32)
    inputs: dict[str, Any] = export_inputs(changed, identity, form, "photos").model_dump(
        mode="json"
    )
    return inputs


@pytest.mark.parametrize(
    "arch", ["repvgg_a2", "mobileone_s1", "fastvit_t8", "repvit_m1", "levit_128s"]
)
def test_fusing_is_in_the_keys_of_networks_that_are_fused(manifest: Manifest, arch: str) -> None:
    assert key(manifest, arch)["fusion"] == FUSION


def test_keys_of_other_networks_stay(manifest: Manifest) -> None:
    assert "fusion" not in key(manifest, "resnet50")
    assert "fusion" not in key(manifest, "convnext_tiny")


@pytest.mark.parametrize("arch", ["repghostnet_050", "mobileone_s0", "test_byobnet", "test_vit"])
def test_the_list_has_the_architectures_that_can_be_fused(manifest: Manifest, arch: str) -> None:
    with torch.device("meta"):
        model = import_timm().create_model(arch)
    assert fusion.can_fuse(model) is ("fusion" in key(manifest, arch))
