"""Weights of another input size, resampled as timm does it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zoo.schema.manifest import Manifest

if TYPE_CHECKING:
    import torch

    State = Mapping[str, torch.Tensor]


def resample(manifest: Manifest, misfits: State, expected: State) -> dict[str, torch.Tensor]:
    """Returns the tensors, among some of another shape, that timm fits to a network.

    Position embeddings belong to an input size. timm resamples them when it loads pretrained
    weights, each family by a function of its own that only loading calls. So it loads the network's
    own state dict with these tensors in it.

    Args:
        manifest: The model, whose arguments give the network another size.
        misfits: Tensors of a file of weights, by their name in the network.
        expected: The network's state dict.
    """
    together = _as_timm_loads(manifest, {**expected, **misfits})
    if together is not None:
        return {name: together[name] for name in misfits}
    # One of them is of another shape for another reason: then each is tried alone.
    alone = {name: _as_timm_loads(manifest, {**expected, name: misfits[name]}) for name in misfits}
    return {name: state[name] for name, state in alone.items() if state is not None}


def _as_timm_loads(manifest: Manifest, state: State) -> State | None:
    """Returns a network's state after timm has loaded another; None if it does not fit."""
    import timm

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = timm.create_model(
                manifest.timm_name,
                pretrained=True,
                pretrained_cfg_overlay={"state_dict": dict(state)},
                **manifest.arguments,
            )
    except (RuntimeError, ValueError, AssertionError, IndexError):
        return None
    loaded: State = model.state_dict()
    return loaded
