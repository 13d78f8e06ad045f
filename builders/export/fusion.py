"""Networks that train with parallel branches, fused into one branch before they are exported.

RepVGG, MobileOne, FastViT, RepViT and others compute sums of convolutions and norms in training
that are one convolution afterwards. No runtime finds that by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from builders.export.backbone import Backbone
from builders.verify.metrics import compare_rows
from builders.verify.misses import find_misses
from zoo.inference.preprocess import normalise
from zoo.schema.manifest import Manifest
from zoo.schema.measurements import FusionCheck
from zoo.schema.precisions import Precision
from zoo.util.errors import ExportError

_PROTOCOLS = ("fuse", "reparameterize", "switch_to_deploy")
"""Methods of the modules that timm fuses."""

_AT_ONCE = 4  # batch size in PyTorch


@dataclass(frozen=True, kw_only=True)
class Fused:
    """A fused network.

    Attributes:
        backbone: It.
        check: How far its features are from those of the network as it was trained.
    """

    backbone: Backbone
    check: FusionCheck


def can_fuse(model: nn.Module) -> bool:
    """Returns whether a network has modules that timm can fuse."""
    return any(hasattr(m, name) for m in model.modules() for name in _PROTOCOLS)


def fuse(
    manifest: Manifest,
    backbone: Backbone,
    images: npt.NDArray[np.uint8],
    features: npt.NDArray[np.float32],
) -> Fused | None:
    """Fuses a copy of a network, and compares its features with the network's own.

    Args:
        manifest: The model.
        backbone: Its network, as trained.
        images: The golden photos, ``(N, H, W, 3)``.
        features: The network's features of them, ``(N, feature_dim)``.

    Returns:
        The fused network; None if there is nothing to fuse.

    Raises:
        ExportError: Features of the fused network miss the tolerance of fp32.
    """
    from timm.models import reparameterize_model

    model: Any = backbone.model
    if not can_fuse(model):
        return None
    with torch.no_grad():
        fused = Backbone(reparameterize_model(model), backbone.cut)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), _AT_ONCE):
            batch = normalise(images[start : start + _AT_ONCE], manifest.preprocess.plain)
            rows.append(fused(torch.from_numpy(batch)).numpy())
    numbers = compare_rows(np.concatenate(rows), features, features)
    if missed := find_misses(numbers, manifest.kept_by(Precision.FP32)):
        raise ExportError(
            f"{manifest.id}: features of the fused network differ from those of the network as "
            f"trained: {'; '.join(missed)}",
            hint="timm.models.reparameterize_model changes what this network computes; norms with "
            "a variance near 0 do that, too",
        )
    return Fused(
        backbone=fused,
        check=FusionCheck(
            worst_cosine=numbers.worst_cosine,
            worst_relative_error=numbers.worst_relative_error,
            parameters_before=_count(model),
            parameters=_count(fused.model),
        ),
    )


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
