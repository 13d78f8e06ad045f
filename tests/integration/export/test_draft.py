"""Drafted manifests: what timm states, and the cut that the network itself answers for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from builders.export.anatomy import Anatomies, choose_cut, examine
from builders.export.available import examine_all, names_like
from builders.export.backbone import import_timm
from builders.export.draft import Wishes, as_exported, batches, draft, full_name
from builders.export.draft_text import to_toml
from zoo.schema.manifest import Cut, HubWeights, Manifest, load_manifest
from zoo.util.errors import ExportError, ManifestError, UsageError

CUTS = [
    # network, cut, width
    ("test_resnet.r160_in1k", "pooled", 96),
    ("test_efficientnet.r160_in1k", "pooled", 256),
    ("test_nfnet.r160_in1k", "pooled", 192),
    ("test_convnext.r160_in1k", "pre_logits", 64),  # its head normalises what it pooled
    ("test_mambaout", "pre_logits", 256),  # a map with its channels last
    ("test_vit.r160_in1k", "cls_token", 64),
    ("test_vit2.r160_in1k", "pre_logits", 64),  # a register, no class token
    ("eva02_tiny_patch14_224.mim_in22k", "pre_logits", 192),  # pools all tokens but the first
    ("vit_base_patch16_siglip_224.webli", "pre_logits", 768),  # attention pools all tokens
    ("levit_128s.fb_dist_in1k", "pre_logits", 384),
    ("hiera_tiny_224.mae", "pre_logits", 768),
    ("mobilenetv4_conv_small.e1200_r224_in1k", "pooled", 960),  # conv_head is of the classifier
]


@pytest.mark.parametrize(("name", "cut", "width"), CUTS)
def test_the_network_is_asked_for_its_cut(name: str, cut: str, width: int) -> None:
    """Under no name at all: the network alone decides."""
    timm = import_timm()
    make = partial(timm.create_model, name, pretrained=False)
    anatomy = examine("", make, timm.get_pretrained_cfg(name).input_size[1:])
    chosen = choose_cut(anatomy)
    assert (chosen, anatomy.cuts[Cut(cut)]) == (cut, width)


def test_a_network_without_features_has_no_cut() -> None:
    class Mute(nn.Module):
        def forward_features(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            return (images,)

    assert choose_cut(examine("mute", Mute, (32, 32))) is None


def test_a_network_that_does_not_run_is_an_error() -> None:
    make = partial(import_timm().create_model, "vit_tiny_patch16_224", pretrained=False)
    with pytest.raises(ExportError, match=r"\b96x96\b.*\b224\b"):
        examine("ours", make, (96, 96))


def test_a_draft_states_what_the_manifests_state(manifests: dict[str, Manifest]) -> None:
    """One of each family: most were written before there were drafts."""
    anatomies = Anatomies()
    for manifest in {one.family: one for one in manifests.values()}.values():
        if not isinstance(manifest.weights, HubWeights) or manifest.deviations:
            continue
        wishes = Wishes(
            cut=manifest.backbone.cut, at_test_size=manifest.preprocess.size_of == "test"
        )
        drafted = draft(manifest.timm_name, wishes, manifests, anatomies).manifest
        assert drafted.preprocess.plain == manifest.preprocess.plain, manifest.id
        assert drafted.backbone == manifest.backbone
        assert drafted.licence == manifest.licence
        assert drafted.weights.source == "hub"
        # A person may state less.
        assert drafted.batch.gpu[-1].max >= manifest.batch.gpu[-1].max, manifest.id
        assert drafted.weights == HubWeights(
            source="hub", repository=manifest.weights.repository
        ), "a draft knows no hash"


@pytest.mark.parametrize(
    ("name", "wishes"),
    [
        ("convnext_tiny.fb_in1k", Wishes()),
        ("convnext_tiny.fb_in1k", Wishes(at_test_size=True, cut=Cut.FLATTENED, id="other")),
        ("resnet50.a1_in1k", Wishes(input_size=160, family="mine")),
        ("dm_nfnet_f0.dm_in1k", Wishes()),  # squash
        ("vit_base_patch16_dinov3.lvd1689m", Wishes()),  # a licence that is not on the list
    ],
)
def test_the_text_of_a_draft_is_its_manifest(
    name: str, wishes: Wishes, manifests: dict[str, Manifest], tmp_path: Path
) -> None:
    drafted = draft(name, wishes, manifests, Anatomies())
    path = tmp_path / f"{drafted.manifest.id}.toml"
    path.write_text(to_toml(drafted))
    assert load_manifest(path) == drafted.manifest
    for remark in drafted.remarks.values():
        assert f"# {remark}" in path.read_text()


def test_an_id_and_a_family_that_fit_the_other_manifests(manifests: dict[str, Manifest]) -> None:
    some = {name: manifests[name] for name in ("resnet50", "resnet101", "vit_base_patch16_224")}

    def drafted(name: str) -> Manifest:
        return draft(name, Wishes(), some, Anatomies()).manifest

    assert drafted("resnet50.a1_in1k").id == "resnet50"
    assert drafted("resnet50.tv_in1k").id == "resnet50_tv_in1k"
    assert drafted("resnet18.a1_in1k").id == "resnet18"
    assert drafted("resnet18.a1_in1k").family == "resnet"
    assert drafted("test_vit.r160_in1k").family == "vit"


def test_what_a_network_lacks_is_an_error(manifests: dict[str, Manifest]) -> None:
    with pytest.raises(ExportError, match="'cls_token'") as refused:
        draft("test_resnet.r160_in1k", Wishes(cut=Cut.CLS_TOKEN), manifests, Anatomies())
    assert "'pooled' (96)" in str(refused.value.hint)
    with pytest.raises(ManifestError):
        draft("gcvit_xxtiny.in1k", Wishes(), manifests, Anatomies())
    with pytest.raises(ManifestError, match=r"input_size.*4096"):
        draft("test_resnet.r160_in1k", Wishes(input_size=4096), manifests, Anatomies())


def test_batch_ranges_follow_from_the_largest_tensor(manifests: dict[str, Manifest]) -> None:
    b7 = manifests["efficientnet_b7"]
    assert draft(b7.timm_name, Wishes(), manifests, Anatomies()).manifest.batch.gpu == b7.batch.gpu
    assert [profile.max for profile in batches(1_000_000).gpu] == [8, 256]
    assert [profile.max for profile in batches(2**31 // 100).gpu] == [8, 64]
    assert [profile.max for profile in batches(2**31 // 5).gpu] == [4]
    assert batches(2**31 // 5).cpu.max == 1


def test_an_export_corrects_what_was_estimated(manifests: dict[str, Manifest]) -> None:
    """The cut of a MobileNetV4 is before its last convolution, which no row of weights needs."""
    drafted = draft("mobilenetv4_conv_small.e2400_r224_in1k", Wishes(), manifests, Anatomies())
    assert "2.5 million weights" in drafted.manifest.catalog.characteristics
    exported = as_exported(drafted, 2**31 // 100, 1_261_664)
    assert exported.manifest.catalog.characteristics == (
        "960 features (pooled)",
        "1.3 million weights",
    )
    assert exported.manifest.batch.gpu[-1].max == 64
    assert "21,474,836" in exported.remarks["batch"]
    person = exported.manifest.catalog.model_copy(update={"characteristics": ("a", "b", "c")})
    told = replace(drafted, manifest=drafted.manifest.model_copy(update={"catalog": person}))
    assert as_exported(told, 1, 1).manifest.catalog == person


def test_names_that_timm_does_not_have() -> None:
    assert full_name("test_vit").startswith("test_vit.")
    with pytest.raises(UsageError, match="'convnext_tiny'"):
        full_name("convnext_tiney")
    with pytest.raises(UsageError, match="'fb_in1k'") as refused:
        full_name("convnext_tiny.fb_1k")
    assert "fb_in22k" in str(refused.value.hint)
    with pytest.raises(UsageError):
        full_name("resnet200")
    with pytest.raises(UsageError, match=r"'konvnext\*'"):
        names_like("konvnext*")


def test_what_stands_in_the_way_is_listed(manifests: dict[str, Manifest]) -> None:
    names = ["resnet50.a1_in1k", "gcvit_xxtiny.in1k", "convnextv2_atto.fcmae_ft_in1k",
             "test_vit.r160_in1k"]  # fmt: skip
    rows = {row.name: row for row in examine_all(names, manifests)}
    assert list(rows) == names
    assert rows["resnet50.a1_in1k"].model == "resnet50"
    assert "repository" in rows["gcvit_xxtiny.in1k"].obstacle
    assert rows["gcvit_xxtiny.in1k"].draft is None
    assert "cc-by-nc-4.0" in rows["convnextv2_atto.fcmae_ft_in1k"].obstacle
    ready = rows["test_vit.r160_in1k"]
    assert (ready.obstacle, ready.model) == ("", None)
    assert ready.draft is not None
    assert ready.draft.backbone.cut is Cut.CLS_TOKEN
    assert names_like("test_vit") == names_like("test_vit.*")
