"""Every residual branch of a seeded network reaches its features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.goldens import assert_golden
from support.records import backbone_cut
from torch import nn

from builders.export import branches
from builders.export.backbone import Backbone, import_timm
from builders.weights import seeded
from zoo.schema.manifest import Manifest
from zoo.util.errors import ExportError

DEAD = ["test_resnet", "test_convnext", "test_convnext3", "test_nfnet", "test_vit4"]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = import_timm().create_model(name, pretrained=False)
    return model


def backbone_of(model: nn.Module, cut: str = "pre_logits") -> Backbone:
    return Backbone(model, backbone_cut(cut=cut, feature_dim=1))


def photo(size: int = 160) -> torch.Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", DEAD)
def test_fresh_networks_have_dead_branches_and_seeded_ones_have_none(name: str) -> None:
    with pytest.raises(ExportError) as refused:
        branches.check_alive("model", backbone_of(network(name)), photo())
    assert refused.value.exit_code == 6
    images = np.random.default_rng(0).standard_normal((4, 3, 160, 160), np.float32)
    made = backbone_of(seeded.make_network(lambda: network(name), images))
    note = branches.check_alive("model", made, photo())
    assert note is not None
    assert f"{len(branches.find_branches(made, photo()))} residual branches" in note


def test_a_network_that_starts_alive_is_left_alone() -> None:
    model = network("test_vit")
    assert branches.check_alive("model", backbone_of(model), photo()) is not None
    assert not seeded.scales_near_zero(model)


def test_a_network_without_residual_branches_is_no_failure() -> None:
    assert branches.check_alive("model", backbone_of(network("test_efficientnet")), photo()) is None


class Residual(nn.Module):
    """A shortcut, and a branch that makes up a given share of the features."""

    def __init__(self, share: float, *, in_place: bool = False) -> None:
        super().__init__()
        self.share, self.in_place = share, in_place
        self.block = nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        x = self.block(images).abs()
        branch = self.act(x.flip(3)) * self.share
        if self.in_place:
            x = x.clone()
            x.add_(branch)  # whose result is not used
            return x
        return x + branch


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("share", [1.0, 1e-2, 1e-6, 0.0])
def test_the_change_is_that_of_the_features_without_the_branch(
    share: float, in_place: bool
) -> None:
    model = Residual(share, in_place=in_place)
    (branch,) = branches.find_branches(backbone_of(model, "flattened"), photo(32))
    with torch.no_grad():
        whole = model.forward_features(photo(32))
        without = Residual(0).forward_features(photo(32))
    change = float((whole - without).norm() / whole.norm())
    assert branch.change == pytest.approx(change, rel=0.9, abs=2e-7)
    assert model.act.inplace  # as before


def test_sums_with_what_does_not_depend_on_the_photo_are_no_branches() -> None:
    class Biased(Residual):
        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            return self.block(images) + torch.zeros_like(images) + 0

    assert branches.find_branches(backbone_of(Biased(0), "flattened"), photo(32)) == []


def test_a_single_dead_branch_is_named() -> None:
    model = network("test_vit")
    block = model.get_submodule("blocks.2.mlp.fc2")
    assert isinstance(block, nn.Linear)
    nn.init.zeros_(block.weight)
    with pytest.raises(ExportError, match=r"\b1 of 12\b.*blocks\.2") as refused:
        branches.check_alive("model", backbone_of(model), photo())
    assert_golden("export/dead-branch", refused.value)


@pytest.mark.parametrize(
    "name", ["convnext_atto", "edgenext_xx_small", "resnet18", "vit_tiny_patch16_224"]
)
def test_the_list_has_the_architectures_whose_scales_are_drawn(name: str) -> None:
    assert bool(seeded.scales_near_zero(network(name))) is (name in seeded._with_scales())


def test_keys_of_networks_without_such_scales_stay(manifests: dict[str, Manifest]) -> None:
    for manifest in manifests.values():
        if manifest.arch not in seeded._with_scales():
            assert seeded.recipe(manifest).recipe.startswith("seeded-1,")
    base = manifests["resnet50"]
    for change in ({"arch": "convnext_tiny"}, {"arguments": {"output_stride": 16}}):
        assert seeded.recipe(base.model_copy(update=change)).recipe.startswith("seeded-2,")
    assert base.arch not in seeded._with_scales()
