"""Random weights with realistic activations, for dry runs without a hub.

A freshly initialised network does not test much: timm initialises the last BatchNorm of a residual
block to zero, which disables the branch, and BatchNorm statistics do not fit any image. LayerScale,
SkipInit and some other norms start at or near zero, too. So scales are drawn at random, and the
statistics are set by one pass over real photos.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict, Field

from builders.photos import bundled
from zoo.schema.manifest import Argument, Manifest, Preprocess
from zoo.schema.omitted import OmitsDefaults
from zoo.util.digest import sha256_json
from zoo.util.installed_versions import version

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn

SEED = 0
SCALES, BRANCH_SCALES = (0.5, 1.5), (0.1, 0.4)
NEAR_ZERO = 0.05
"""What a constant scale is smaller than that keeps a branch from mattering. BEiT starts at 0.1."""

LEAST_VARIANCE = 0.1
"""Lower limit of a channel's variance, relative to the mean of its layer."""


_WITH_SCALES = Path(__file__).with_name("networks_with_scales.txt")
_ADDED = re.compile(r"bias|token|embed|latent")
"""In the names of parameters that are added to activations."""


class Recipe(OmitsDefaults):
    """The inputs of a seeded state.

    The state also depends on thread count and instruction set, which is why it is stored as a blob
    and its record is only named by the key of this recipe.

    Attributes:
        recipe: Name, version and constants of the algorithm.
        seed: Random seed of the weights.
        arch: timm name of the model.
        arguments: Arguments of its network; not in the JSON without any, so that keys stay.
        preprocess: The preprocessing of the photos.
        photos: Name of the photos that set the BatchNorm statistics.
        torch: Version of PyTorch.
        timm: Version of timm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    omitted: ClassVar[frozenset[str]] = frozenset({"arguments"})

    recipe: str
    seed: int
    arch: str
    arguments: dict[str, Argument] = Field(default={})
    preprocess: Preprocess
    photos: str
    torch: str
    timm: str

    @property
    def key(self) -> str:
        """SHA-256 of the canonical JSON of this recipe."""
        return sha256_json(self.model_dump(mode="json"))


def recipe(manifest: Manifest) -> Recipe:
    """Returns the inputs of a model's seeded state.

    Networks without scales near zero have the same state as before those were drawn, and so the
    same recipe. Importing timm to ask takes seconds, so a file names the others.
    """
    drawn = manifest.arch in _with_scales() or bool(manifest.arguments)
    numbers = f"scales {SCALES}, branches {BRANCH_SCALES}, variance {LEAST_VARIANCE}"
    return Recipe(
        recipe=f"seeded-2, {numbers}, near zero {NEAR_ZERO}" if drawn else f"seeded-1, {numbers}",
        seed=SEED,
        arch=manifest.timm_name,
        arguments=manifest.arguments,
        preprocess=manifest.preprocess.plain,
        photos=bundled.statistics_name(),
        torch=version("torch"),
        timm=version("timm"),
    )


@cache
def _with_scales() -> frozenset[str]:
    """Returns timm's architectures with scales that start near zero."""
    lines = _WITH_SCALES.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def scales_near_zero(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns a fresh network's scales that switch off what they scale, by name.

    These are the parameters with one value per channel, or only one, that start constant and near
    zero, but for what is added instead of multiplied, and but for BatchNorms.
    """
    from torch import nn

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    of_norms = {id(parameter) for norm in norms for parameter in norm.parameters()}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if id(parameter) not in of_norms
        and not _ADDED.search(name.rpartition(".")[2])
        and _is_near_zero(parameter.detach())
    }


def _is_near_zero(values: torch.Tensor) -> bool:
    per_channel = values.numel() == max(values.shape, default=1)
    if not (per_channel and values.is_floating_point()):
        return False
    low, high = float(values.min()), float(values.max())
    return low == high and abs(high) < NEAR_ZERO


def make_state(
    create: Callable[[], nn.Module], images: npt.NDArray[np.float32]
) -> dict[str, torch.Tensor]:
    """Draws a model's weights as :func:`make_network` does, and returns :func:`state_of` it."""
    return state_of(make_network(create, images))


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Returns the state dict of the whole model, classifier included, as in a hub's file."""
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def make_network(create: Callable[[], nn.Module], images: npt.NDArray[np.float32]) -> nn.Module:
    """Draws a model's weights and sets its BatchNorm statistics on real photos.

    Args:
        create: Returns the model, freshly initialised.
        images: Preprocessed photos, ``(N, 3, H, W)``.

    Returns:
        The model, in evaluation mode.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = create()
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            # timm initialises the norms that end a residual branch to zero. A branch as strong as
            # its shortcut would amplify rounding errors a hundredfold in a deep network.
            ends_branch = not norm.weight.any()
            nn.init.uniform_(norm.weight, *(BRANCH_SCALES if ends_branch else SCALES))
            nn.init.uniform_(norm.bias, -0.2, 0.2)
            norm.reset_running_stats()
        for name, scale in scales_near_zero(model).items():
            # What follows a norm is as strong as its shortcut; what comes out of random layers is
            # a small part of it already.
            of_norm = name.endswith(".weight")
            nn.init.uniform_(scale, *(BRANCH_SCALES if of_norm else SCALES))
    model.eval()
    if norms:
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = None  # cumulative average
        with torch.inference_mode():
            model(torch.from_numpy(images))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum
            # A channel that hardly varies on these few photos would explode on others.
            variance = norm.running_var
            assert variance is not None
            variance.clamp_(min=float(variance.mean()) * LEAST_VARIANCE)
    return model
