"""A cut is what its name says, for networks of many families."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.goldens import assert_golden, raises_golden
from support.records import backbone_cut
from torch import nn

from builders.export import cuts
from builders.export.backbone import Backbone, check_width, import_timm
from builders.export.fp32 import export_fp32
from builders.recipe.export_form import DIALECTS
from zoo.schema.manifest import CropMode, Cut, Manifest, StatedPreprocess
from zoo.util.errors import ExportError


def manifest_of(base: Manifest, name: str, cut: str, width: int, **changes: Any) -> Manifest:
    """Returns the manifest of a timm model, with what timm states about it."""
    config = import_timm().get_pretrained_cfg(name)
    arch, _, tag = name.partition(".")
    preprocess = StatedPreprocess(
        input_size=config.input_size[1], crop=config.crop_pct, crop_mode=config.crop_mode,
        interpolation=config.interpolation, mean=config.mean, std=config.std, size_of="train",
        size_reason="r",
    )  # fmt: skip
    weights = base.weights.model_copy(update={"repository": config.hf_hub_id or "a/b"})
    stated = {
        "id": "model", "arch": arch, "tag": tag, "licence": config.license or "mit",
        "weights": weights, "backbone": backbone_cut(cut=cut, feature_dim=width),
        "preprocess": preprocess, "tolerance": {},
    }  # fmt: skip
    return base.model_copy(update={**stated, **changes})


@cache
def network(name: str) -> nn.Module:
    """Returns a network with random weights, in evaluation mode."""
    torch.manual_seed(0)
    model: nn.Module = import_timm().create_model(name, pretrained=False).eval()
    return model


UNFIT = [
    # model, cut, the width that it gives, a word of the reason, a cut that fits
    ("mixer_s32_224", "cls_token", 512, "a patch", "'pre_logits' (feature_dim = 512)"),
    ("vit_relpos_small_patch16_224.sw_in1k", "cls_token", 384, "a patch", "pre_logits"),
    ("levit_128s.fb_dist_in1k", "cls_token", 384, "a patch", "pre_logits"),
    ("test_vit2.r160_in1k", "cls_token", 64, "a register", "pre_logits"),
    ("test_vit3.r160_in1k", "cls_token", 96, "a register", "pre_logits"),
    ("eva02_tiny_patch14_224.mim_in22k", "cls_token", 192, "not normalised", "pre_logits"),
    ("test_mambaout", "pooled", 5, "channels last", "'pre_logits' (feature_dim = 256)"),
    ("swinv2_tiny_window8_256.ms_in1k", "pooled", 8, "channels last", "pre_logits"),
    ("resnet50_clip.openai", "pooled", 2048, "AttentionPool2d", "'pre_logits'"),
]


@pytest.mark.parametrize(("name", "cut", "width", "reason", "fits"), UNFIT)
def test_a_cut_that_a_network_does_not_have_is_refused_with_one_that_fits(
    name: str, cut: str, width: int, reason: str, fits: str, manifests: dict[str, Manifest]
) -> None:
    """All of these have the width that their manifest states, and finite features."""
    manifest, model = manifest_of(manifests["resnet50"], name, cut, width), network(name)
    check_width("model", Backbone(model, manifest.backbone), cuts.first_photos(manifest))
    with pytest.raises(ExportError, match=reason) as refused:
        cuts.check_cut(manifest, model)
    assert refused.value.exit_code == 6
    assert name in refused.value.message
    assert fits in str(refused.value.hint)


@pytest.mark.parametrize(
    ("cut", "width"), [("pooled", 96), ("flattened", 2400), ("pre_logits", 96)]
)
def test_features_that_are_not_finite_are_no_matter_of_the_cut(
    cut: str, width: int, manifests: dict[str, Manifest]
) -> None:
    name = "test_resnet.r160_in1k"
    manifest, model = manifest_of(manifests["resnet50"], name, cut, width), deepcopy(network(name))
    norm: Any = model.get_submodule("layer2.0.bn1")
    norm.running_var.fill_(-0.1)
    with raises_golden(ExportError, "export/negative-variance", match=r"layer2\.0\.bn1\.running"):
        cuts.check_cut(manifest, model)


def test_the_first_photos_are_computed_once_and_the_same_bytes_come_out(
    manifests: dict[str, Manifest],
) -> None:
    name = "test_resnet.r160_in1k"
    manifest = manifest_of(manifests["resnet50"], name, "pooled", 96)
    model = deepcopy(network(name))
    backbone, first = Backbone(model, manifest.backbone), cuts.first_photos(manifest)
    runs: list[int] = []
    conv1: Any = model.get_submodule("conv1")
    conv1.register_forward_hook(lambda module, inputs, output: runs.append(len(output)))
    with torch.inference_mode():
        expected, others = backbone(first), backbone(first[1:])
        runs.clear()
        with cuts.remembering(model):
            cuts.check_cut(manifest, model)
            check_width("model", backbone, first)
            features = backbone(first)
            assert runs == [4]
            assert torch.equal(backbone(first[1:]), others)
        assert torch.equal(features, expected)
        backbone(first)
    assert runs == [4, 3, 4]


def test_what_is_not_finite_is_not_remembered(manifests: dict[str, Manifest]) -> None:
    name = "test_resnet.r160_in1k"
    manifest = manifest_of(manifests["resnet50"], name, "pooled", 96)
    model = deepcopy(network(name))
    norm: Any = model.get_submodule("layer2.0.bn1")
    norm.running_var.fill_(-0.1)
    with cuts.remembering(model), pytest.raises(ExportError, match=r"layer2\.0\.bn1\.running"):
        cuts.check_cut(manifest, model)


FIT = [
    ("test_resnet.r160_in1k", "pooled", 96), ("test_resnet.r160_in1k", "pre_logits", 96),
    ("test_resnet.r160_in1k", "flattened", 2400), ("test_convnext.r160_in1k", "pooled", 64),
    ("test_convnext.r160_in1k", "pre_logits", 64), ("test_vit.r160_in1k", "cls_token", 64),
    ("test_vit.r160_in1k", "pre_logits", 64), ("test_vit2.r160_in1k", "pre_logits", 64),
    ("test_vit3.r160_in1k", "pre_logits", 96), ("test_mambaout", "pre_logits", 256),
    ("mobilenetv3_small_050.lamb_in1k", "pooled", 288),
    ("mobilenetv3_small_050.lamb_in1k", "pre_logits", 1024),
    ("deit_tiny_distilled_patch16_224.fb_in1k", "cls_token", 192),
    ("deit_tiny_distilled_patch16_224.fb_in1k", "pre_logits", 192),
    ("xcit_nano_12_p16_224.fb_in1k", "cls_token", 128),
    ("coat_lite_tiny.in1k", "cls_token", 320), ("pit_ti_224.in1k", "cls_token", 256),
    ("levit_128s.fb_dist_in1k", "pre_logits", 384),
]  # fmt: skip


@pytest.mark.parametrize(("name", "cut", "width"), FIT)
def test_features_are_those_of_timms_own_methods(
    name: str, cut: str, width: int, manifests: dict[str, Manifest]
) -> None:
    manifest, model = manifest_of(manifests["resnet50"], name, cut, width), network(name)
    cuts.check_cut(manifest, model)
    size = manifest.preprocess.input_size
    assert isinstance(size, int)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, size, size, 3), np.uint8)
    batch = torch.from_numpy(cuts.normalise(images, manifest.preprocess.plain))
    with torch.inference_mode():
        features = Backbone(model, manifest.backbone)(batch).numpy()
    assert features.shape == (3, width)
    expected = cuts.timm_features(model, Cut(cut), batch)
    cuts.check_golden(manifest, expected, features)
    for spoilt in (features[:, ::-1].copy(), features[[1, 0, 2]], 1.01 * features):
        with pytest.raises(ExportError, match="timm"):
            cuts.check_golden(manifest, expected, spoilt)


def test_a_network_that_does_not_run_at_a_size_says_so(manifests: dict[str, Manifest]) -> None:
    name = "deit_tiny_distilled_patch16_224.fb_in1k"
    manifest = manifest_of(manifests["resnet50"], name, "cls_token", 192)
    smaller = manifest.preprocess.model_copy(update={"input_size": 192})
    with pytest.raises(ExportError, match=r"preprocess\.input_size: .*\b192\b") as refused:
        cuts.check_cut(manifest.model_copy(update={"preprocess": smaller}), network(name))
    assert_golden("export/size-of-another-network", refused.value)


def test_every_cut_has_timms_own_features() -> None:
    images = torch.rand(2, 3, 160, 160)
    for cut in Cut:
        name = "test_vit.r160_in1k" if cut is Cut.CLS_TOKEN else "test_resnet.r160_in1k"
        model = projecting() if cut is Cut.PROJECTED else network(name)
        assert cuts.timm_features(model, cut, images).dim() == 2


@cache
def projecting() -> nn.Module:
    """Returns a network whose head projects, as that of CLIP's image tower."""
    torch.manual_seed(0)
    model: nn.Module = import_timm().create_model("test_vit", num_classes=48).eval()
    return model


@cache
def attending() -> nn.Module:
    """Returns a network that pools its tokens by attention, without a head, as SigLIP's."""
    torch.manual_seed(0)
    model: nn.Module = import_timm().create_model(
        "test_vit", global_pool="map", class_token=False, num_classes=0
    )
    return model.eval()


def features_of(model: nn.Module, cut: str, width: int, images: torch.Tensor) -> torch.Tensor:
    backbone = Backbone(model, backbone_cut(cut=cut, feature_dim=width))
    with torch.inference_mode():
        features: torch.Tensor = backbone(images)
    return features


def test_projected_features_are_what_the_head_returns() -> None:
    images = torch.rand(2, 3, 160, 160)
    expected = cuts.timm_features(projecting(), Cut.PROJECTED, images)
    features = features_of(projecting(), "projected", 48, images)
    assert features.shape == (2, 48)
    assert torch.equal(features, expected)
    before = features_of(projecting(), "pre_logits", 64, images)
    head: Any = projecting()
    assert torch.allclose(head.head(before), features, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "reason"), [(lambda: network("test_vit.r160_in1k"), "logits"), (attending, "nothing")]
)
def test_a_head_that_does_not_project_is_refused(make: Any, reason: str) -> None:
    with pytest.raises(cuts.UnfitError, match=reason):
        cuts.timm_features(make(), Cut.PROJECTED, torch.rand(2, 3, 160, 160))


def test_features_pooled_by_attention_are_pre_logits() -> None:
    images = torch.rand(2, 3, 160, 160)
    features = features_of(attending(), "pre_logits", 64, images)
    model: Any = attending()
    with torch.inference_mode():
        assert torch.equal(features, model.attn_pool(model.forward_features(images)))
        assert torch.equal(features, cuts.timm_features(model, Cut.PRE_LOGITS, images))
    with pytest.raises(cuts.UnfitError):
        cuts.timm_features(model, Cut.CLS_TOKEN, images)


def export_of(manifest: Manifest, output: Path) -> None:
    """Runs the fp32 part of an export job with seeded weights."""
    job: Any = SimpleNamespace(
        manifest=manifest, weights=SimpleNamespace(seeded=True), state=None,
        inputs={"fp32": SimpleNamespace(dialect=DIALECTS["dynamo-20"])},
    )  # fmt: skip
    output.mkdir(exist_ok=True)
    export_fp32(job, SimpleNamespace(output=output), lambda done, note: None)  # type: ignore[arg-type]


def test_the_export_job_refuses_a_cut_before_it_writes_features(
    tmp_path: Path, manifests: dict[str, Manifest]
) -> None:
    manifest = manifest_of(manifests["resnet50"], "test_vit2.r160_in1k", "cls_token", 64)
    with pytest.raises(ExportError) as refused:
        export_of(manifest, tmp_path)
    assert_golden("export/no-class-token", refused.value)
    assert not list(tmp_path.glob("*.npz"))
    assert not list(tmp_path.glob("*.onnx"))


def test_the_export_job_compares_golden_features_with_timms(
    tmp_path: Path, manifests: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut whose code is wrong: `pooled` that takes the largest of the map."""

    def largest(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = backbone.model.forward_features(images)
        return features.amax((2, 3))

    monkeypatch.setattr(Backbone, "forward", largest)
    manifest = manifest_of(manifests["resnet50"], "test_resnet.r160_in1k", "pooled", 96)
    with pytest.raises(ExportError, match=r"'pooled'.*timm.*cosine"):
        export_of(manifest, tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


def test_a_model_that_is_squashed_to_no_square_is_exported(
    tmp_path: Path, manifests: dict[str, Manifest]
) -> None:
    import onnx

    manifest = manifest_of(manifests["resnet50"], "test_resnet.r160_in1k", "pooled", 96)
    stated = {"input_size": (96, 160), "crop_mode": CropMode.SQUASH, "crop": 1.0}
    manifest = manifest.model_copy(
        update={
            "preprocess": manifest.preprocess.model_copy(update=stated),
            "deviations": dict.fromkeys(stated, "a test"),
        }
    )
    export_of(manifest, tmp_path)
    shape = onnx.load(tmp_path / "fp32.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in shape][1:] == [3, 96, 160]
    with np.load(tmp_path / "golden.npz") as golden:
        assert golden["images"].shape == (12, 96, 160, 3)
        assert golden["features"].shape == (12, 96)
