"""The arguments that a manifest gives timm's network, checked against what that network takes."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from zoo.schema.manifest import Manifest
from zoo.util.causes import cause_of
from zoo.util.errors import ExportError
from zoo.util.names import perhaps

_OF_THE_FARM = {
    "in_chans": "photos have three channels",
    "num_classes": "features are taken before the classifier",
    "device": "exports run on the CPU",
    "dtype": "exports are made in fp32, and converted",
}
"""Arguments of networks that are not a manifest's, and why."""


def make_network(timm: Any, manifest: Manifest) -> nn.Module:
    """Returns timm's network of a manifest, with fresh weights.

    Args:
        timm: The package.
        manifest: The model, whose architecture timm has.

    Raises:
        ExportError: The network does not take an argument, or not its value.
    """
    given = dict(manifest.arguments)
    if given:
        _check_names(timm, manifest)
    try:
        model: nn.Module = timm.create_model(manifest.timm_name, pretrained=False, **given)
    except Exception as error:  # whatever timm's constructors raise about a value
        if not given:
            raise
        stated = ", ".join(f"{name} = {value!r}" for name, value in given.items())
        raise ExportError(
            f"{manifest.id}: arguments: {manifest.timm_name} can't be made with {stated}: "
            f"{cause_of(error)}",
            hint="the network's documentation in timm says which values an argument takes",
        ) from error
    return model


def _check_names(timm: Any, manifest: Manifest) -> None:
    """Raises ExportError for arguments that the network does not take, or that the farm gives.

    timm's own function takes some before the network does, such as ``features_only``, and what its
    errors name depends on the network.
    """
    taken = _taken(timm, manifest.timm_name)
    for name in manifest.arguments:
        if reason := _OF_THE_FARM.get(name):
            raise ExportError(
                f"{manifest.id}: arguments.{name}: not for a manifest to say: {reason}",
                hint=f"remove {name} from [arguments]",
            )
        if name not in taken:
            raise ExportError(
                f"{manifest.id}: arguments.{name}: {manifest.timm_name} takes no such argument."
                f"{perhaps(name, taken)}",
                hint=f"it takes {', '.join(taken)}",
            )


def _taken(timm: Any, name: str) -> list[str]:
    """Returns the names of the arguments of a network's class."""
    try:
        with torch.device("meta"):  # nothing is computed and no memory is needed
            model = timm.create_model(name, pretrained=False)
    except (RuntimeError, NotImplementedError):  # it looks at values while it is made
        model = timm.create_model(name, pretrained=False)
    parameters = inspect.signature(type(model).__init__).parameters.values()
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in ("self", *_OF_THE_FARM)
    ]
