"""Seeded weights: a stand-in with sane activations, for dry runs without a hub.

An untrained network is a poor subject: timm starts the last BatchNorm of a residual block at
zero, which leaves the branch dead, and the statistics of a fresh BatchNorm fit no image. So the
scales are drawn at random and the statistics are set by one pass over real photos.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from builders import photos
from zoo.digest import sha256_json
from zoo.manifest import Manifest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn

SEED = 0


def recipe(manifest: Manifest) -> dict[str, Any]:
    """Returns everything that decides the seeded state of a model.

    The state itself also depends on thread count and instruction set, which is why it is stored
    as a blob and only keyed by this recipe.
    """
    return {
        "recipe": "seeded-1",
        "seed": SEED,
        "arch": manifest.timm_name,
        "input_size": manifest.preprocess.input_size,
        "photos": photos.statistics_name(),
        "torch": version("torch"),
        "timm": version("timm"),
    }


def recipe_key(values: dict[str, Any]) -> str:
    """Returns the digest that a seeded state is stored under."""
    return sha256_json(values)


def make_state(
    create: Callable[[], nn.Module], pixels: npt.NDArray[np.uint8]
) -> dict[str, torch.Tensor]:
    """Draws a model's weights and sets its BatchNorm statistics on real photos.

    Args:
        create: Makes the model with fresh weights.
        pixels: Photos, ``(N, size, size, 3)``.

    Returns:
        The whole model's state dict, classifier included, as a hub would serve it.
    """
    import torch
    from torch import nn

    # Fixed scaling, so that a manifest's mean and std do not decide its weights.
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = create()
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.2, 0.2)
            norm.reset_running_stats()
            norm.momentum = None  # a plain average
    model.eval()
    for norm in norms:
        norm.train()
    if norms:
        with torch.inference_mode():
            model(images)
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
