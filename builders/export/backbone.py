"""Backbones: a frozen timm model without its classification head."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from builders.export.arguments import make_network
from builders.export.cuts import features_at
from zoo.schema.manifest import BackboneCut, Cut, Manifest
from zoo.util.causes import cause_of
from zoo.util.errors import ExportError, ManifestError, MissingPackageError
from zoo.util.names import perhaps


def import_timm() -> Any:
    """Imports timm, even if torchvision's compiled operators do not load.

    torchvision's wheel is built for CUDA. With a CPU build of torch its operators do not load, and
    ``import torchvision`` fails because two of them are not declared. timm uses neither.

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


_LIBRARIES: list[Any] = []  # an operator is removed with its library


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
        pass  # importing timm raises it again, with a hint


def create(manifest: Manifest) -> nn.Module:
    """Returns the manifest's whole timm model with fresh weights.

    Raises:
        ManifestError: timm has no such architecture or tag.
        ExportError: The network does not take the manifest's arguments.
    """
    check_names(manifest)
    return make_network(import_timm(), manifest)


def check_names(manifest: Manifest) -> None:
    """Checks that timm has the architecture and the tag of a manifest.

    Raises:
        ManifestError: It has not; suggests near ones.
    """
    timm = import_timm()
    if not timm.is_model(manifest.arch):
        near = perhaps(manifest.arch, timm.list_models())
        raise ManifestError(
            f"{manifest.id}: arch: timm has no architecture '{manifest.arch}'.{near}"
        )
    tags = timm.list_pretrained(f"{manifest.arch}.*")
    if manifest.tag and manifest.timm_name not in tags:
        known = [name.partition(".")[2] for name in tags]
        raise ManifestError(
            f"{manifest.id}: tag: timm has no tag '{manifest.tag}' of {manifest.arch}."
            f"{perhaps(manifest.tag, known)} It has {', '.join(known) or 'no tags'}"
        )


class Backbone(nn.Module):
    """A model that returns features. Always in ``eval()``, never trained.

    Args:
        model: A timm model.
        cut: Where the features are taken from, and their width.
    """

    def __init__(self, model: nn.Module, cut: BackboneCut) -> None:
        super().__init__()
        self.model: Any = model
        self.cut = cut
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stays in evaluation mode whatever the mode: the backbone is frozen."""
        super().train(False)
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns features.

        Args:
            images: ``(N, 3, H, W)``, float32, normalised.

        Returns:
            ``(N, feature_dim)``, float32.
        """
        return features_at(self.cut.cut, self.model, images)


def check_width(model: str, backbone: Backbone, images: torch.Tensor) -> None:
    """Runs photos and compares the width of their features with the manifest.

    Args:
        model: Manifest id, for messages.
        backbone: The network.
        images: Normalised photos, ``(N, 3, H, W)``.

    Raises:
        ExportError: The cut does not fit the network, or the width differs.
    """
    cut = backbone.cut
    try:
        with torch.inference_mode():
            shape = tuple(backbone(images).shape)
    except (RuntimeError, IndexError, AttributeError, AssertionError) as error:
        raise ExportError(
            f"{model}: backbone.cut: '{cut.cut}' does not fit this network at {_size(images)} "
            f"pixels: {cause_of(error)}",
            hint=f"the cuts are {', '.join(Cut)}",
        ) from error
    if shape != (len(images), cut.feature_dim):
        raise ExportError(
            f"{model}: backbone.feature_dim: the manifest says {cut.feature_dim}, the network "
            f"gives features of shape {shape[1:]} at the cut '{cut.cut}'"
        )


def _size(images: torch.Tensor) -> str:
    height, width = images.shape[2:]
    return str(height) if height == width else f"{height}x{width}"
