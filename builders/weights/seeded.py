"""Random weights with realistic activations, for dry runs without a hub.

A freshly initialised network does not test much: timm initialises the last BatchNorm of a residual
block to zero, which disables the branch, and BatchNorm statistics do not fit any image. So scales
are drawn at random, and the statistics are set by one pass over real photos.
"""

from __future__ import annotations

from collections.abc import Callable
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
LEAST_VARIANCE = 0.1
"""Lower limit of a channel's variance, relative to the mean of its layer."""


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
    """Returns the inputs of a model's seeded state."""
    return Recipe(
        recipe=f"seeded-1, scales {SCALES}, branches {BRANCH_SCALES}, variance {LEAST_VARIANCE}",
        seed=SEED,
        arch=manifest.timm_name,
        arguments=manifest.arguments,
        preprocess=manifest.preprocess.plain,
        photos=bundled.statistics_name(),
        torch=version("torch"),
        timm=version("timm"),
    )


def make_state(
    create: Callable[[], nn.Module], images: npt.NDArray[np.float32]
) -> dict[str, torch.Tensor]:
    """Draws a model's weights and sets its BatchNorm statistics on real photos.

    Args:
        create: Returns the model, freshly initialised.
        images: Preprocessed photos, ``(N, 3, H, W)``.

    Returns:
        The state dict of the whole model, classifier included, as in a hub's file.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng():
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
            norm.momentum = None  # cumulative average
    model.eval()
    for norm in norms:
        norm.train()
    if norms:
        with torch.inference_mode():
            model(torch.from_numpy(images))
        for norm in norms:
            # A channel that hardly varies on these few photos would explode on others.
            variance = norm.running_var
            assert variance is not None
            variance.clamp_(min=float(variance.mean()) * LEAST_VARIANCE)
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
