"""Loads files of weights into timm models; every tensor must match."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import assert_never

from zoo.schema.manifest import FileWeights, HubWeights, Manifest, PypiWeights
from zoo.util.errors import WeightsError

if TYPE_CHECKING:
    import torch
    from torch import nn


def read_state(path: Path, suffix: str | None = None) -> dict[str, torch.Tensor]:
    """Reads a state dict from safetensors or from a pickle that contains only tensors.

    Args:
        path: The file.
        suffix: The file name suffix, for a file whose name has none.

    Raises:
        WeightsError: The file is damaged, or a pickle that contains code.
    """
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if (suffix or path.suffix) == ".safetensors":
            state: dict[str, torch.Tensor] = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(
            f"{path}: not a state dict that can be read safely: {str(error).splitlines()[0]}",
            hint="only safetensors and pickles that contain nothing but tensors are read",
        ) from error
    return state


def load_state(model: nn.Module, manifest: Manifest, path: Path) -> None:
    """Loads the weights of a manifest into its model; no tensor may be missing or unused.

    Args:
        model: From :func:`builders.export.backbone.create`.
        manifest: States how the file names its tensors and which of them to ignore.
        path: The file of weights.

    Raises:
        WeightsError: The file's tensors do not match the model's.
    """
    state = read_state(path)
    weights = manifest.weights
    match weights:
        case PypiWeights():
            if weights.naming == "lukemelas":
                state = lukemelas_to_timm(state, set(model.state_dict()))
        case HubWeights() | FileWeights():
            ignored = weights.ignore
            state = {name: t for name, t in state.items() if not name.startswith(ignored)}
        case _:
            assert_never(weights)
    _load(model, manifest, path, state)


def load_seeded(model: nn.Module, manifest: Manifest, path: Path) -> None:
    """Loads a seeded state: safetensors in timm's naming, whatever the manifest's source is.

    Raises:
        WeightsError: The file's tensors do not match the model's.
    """
    _load(model, manifest, path, read_state(path, ".safetensors"))


def _load(model: nn.Module, manifest: Manifest, path: Path, state: dict[str, torch.Tensor]) -> None:
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        cause = " ".join(str(error).split())[:400]
        raise WeightsError(
            f"{manifest.id}: {path.name} does not fit timm's {manifest.timm_name}: {cause}",
            hint="weights.ignore names tensors that the backbone does not use",
        ) from error


_BLOCK = re.compile(r"_blocks\.(\d+)\.(.+)")
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {  # blocks that do not expand
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def lukemelas_to_timm(
    state: dict[str, torch.Tensor], timm_names: set[str]
) -> dict[str, torch.Tensor]:
    """Renames the tensors of an EfficientNet-Lite from lukemelas's naming to timm's.

    timm numbers blocks by stage (``blocks.2.0``), lukemelas consecutively (``_blocks.3``).

    Args:
        state: State dict in lukemelas's naming.
        timm_names: The names of timm's state dict.
    """
    places = sorted(
        {
            (int(m[1]), int(m[2]))
            for name in timm_names
            if (m := re.match(r"blocks\.(\d+)\.(\d+)\.", name))
        }
    )
    expanded = {m[1] for name in state if (m := _BLOCK.match(name)) and "_expand_conv" in name}

    def rename(name: str) -> str:
        block = _BLOCK.match(name)
        if block is None:
            part, _, leaf = name.partition(".")
            return f"{_OUTSIDE.get(part, part)}.{leaf}"
        number, (part, _, leaf) = block[1], block[2].partition(".")
        if int(number) >= len(places):
            return name
        stage, index = places[int(number)]
        parts = _EXPANDED if number in expanded else _SEPARABLE
        return f"blocks.{stage}.{index}.{parts.get(part, part)}.{leaf}"

    return {rename(name): tensor for name, tensor in state.items()}
