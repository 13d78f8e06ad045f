"""Backbones: a timm model, cut where its features come out, frozen."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from typing_extensions import assert_never

from zoo.schema.manifest import BackboneCut, Cut, Manifest
from zoo.util.errors import ExportError, MissingPackageError
from zoo.util.names import perhaps


def import_timm() -> Any:
    """Imports timm, on machines where torchvision's compiled operators are missing too.

    torchvision's wheel is made for CUDA; on a CPU build of torch its operators do not load and
    ``import torchvision`` fails because two of them are not declared. timm needs neither.

    Raises:
        MissingPackageError: timm is not installed.
    """
    try:
        torch.ops.torchvision.nms  # noqa: B018
    except AttributeError:
        _declare_operators()
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{error.name} is not installed", hint="pip install -e '.[farm]' -c constraints.txt"
        ) from error
    return timm


_LIBRARIES: list[Any] = []  # an operator lives as long as its library


def _declare_operators() -> None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for name in ("nms", "qnms"):
            library.define(name + signature)
        _LIBRARIES.append(library)
    except ModuleNotFoundError:
        pass  # timm will say so


def create(manifest: Manifest) -> nn.Module:
    """Creates the manifest's whole timm model with fresh weights.

    Raises:
        ExportError: timm has no such architecture or tag.
    """
    timm = import_timm()
    if not timm.is_model(manifest.arch):
        near = perhaps(manifest.arch, timm.list_models())
        raise ExportError(f"{manifest.id}: timm has no architecture '{manifest.arch}'.{near}")
    tags = timm.list_pretrained(f"{manifest.arch}.*")
    if manifest.tag and manifest.timm_name not in tags:
        known = [name.partition(".")[2] for name in tags]
        raise ExportError(
            f"{manifest.id}: timm has no tag '{manifest.tag}' of {manifest.arch}."
            f"{perhaps(manifest.tag, known)} It has {', '.join(known)}"
        )
    model: nn.Module = timm.create_model(manifest.timm_name, pretrained=False)
    return model


class Backbone(nn.Module):
    """A model cut where its features come out. Always in ``eval()``, never trained.

    Args:
        model: A timm model.
        cut: Where to cut it, and how wide the features are there.
    """

    def __init__(self, model: nn.Module, cut: BackboneCut) -> None:
        super().__init__()
        self.model: Any = model
        self.cut = cut
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stays in evaluation mode whatever is asked: the backbone is frozen."""
        super().train(False)
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns features.

        Args:
            images: ``(N, 3, H, W)``, float32, normalised.

        Returns:
            ``(N, feature_dim)``, float32.
        """
        features: torch.Tensor = self.model.forward_features(images)
        match self.cut.cut:
            case Cut.POOLED:
                return features.mean((2, 3))
            case Cut.FLATTENED:
                return features.flatten(1)
            case Cut.CLS_TOKEN:
                return features[:, 0]
            case Cut.PRE_LOGITS:
                fed: torch.Tensor = self.model.forward_head(features, pre_logits=True)
                return fed
            case _:
                assert_never(self.cut.cut)


def check_width(model: str, backbone: Backbone, input_size: int) -> None:
    """Runs a blank image through and compares the features with what the manifest says.

    Raises:
        ExportError: The cut does not fit the network, or gives another width.
    """
    cut = backbone.cut
    try:
        with torch.inference_mode():
            shape = tuple(backbone(torch.zeros(1, 3, input_size, input_size)).shape)
    except (RuntimeError, IndexError, AttributeError, AssertionError) as error:
        raise ExportError(
            f"{model}: backbone.cut: '{cut.cut}' does not fit this network at {input_size} "
            f"pixels: {str(error).splitlines()[0]}",
            hint=f"the cuts are {', '.join(Cut)}",
        ) from error
    if shape != (1, cut.feature_dim):
        raise ExportError(
            f"{model}: backbone.feature_dim: the manifest says {cut.feature_dim}, the network "
            f"gives features of shape {shape[1:]} at the cut '{cut.cut}'"
        )
