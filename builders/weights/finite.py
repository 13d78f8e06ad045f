"""Finds why a network's features are NaN or infinite: the module where they first are, its tensors.

One such value makes everything after it so, whatever is computed or compared there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builders.weights.checkpoint import shown

if TYPE_CHECKING:
    import torch
    from torch import nn

HINT = (
    "its training diverged, or what averaged or converted it spoilt these tensors: use another "
    "checkpoint"
)
_NETWORK_ERRORS = (RuntimeError, AssertionError, IndexError, AttributeError, ValueError)
_VARIANCE = "running_var"
_LARGEST = 3  # tensors that are named where values overflow


def why_not_finite(model: nn.Module, features: Callable[[], torch.Tensor]) -> str | None:
    """Returns why features are not finite, naming the tensors responsible.

    Args:
        model: The network, in evaluation mode.
        features: Runs it and returns them.

    Returns:
        The reason in words; None if they are finite, or the network does not run at all.
    """
    import torch

    first: list[tuple[str, nn.Module]] = []
    try:
        with torch.no_grad():
            if _finite(features()):  # looking at every module's output would take longer than it
                return None
            with _watched(model, first):
                features()
    except _NETWORK_ERRORS:  # the export says why
        return None
    if not first:
        return "they are computed so from finite values"
    name, module = first[0]
    if any((values < 0).any() for values in _variances(module).values()):
        negative = [name for name, values in _variances(model).items() if (values < 0).any()]
        return f"negative variances in {shown(negative)}"
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    if broken := [f"{name}.{leaf}" for leaf, tensor in tensors if not _finite(tensor)]:
        return f"NaN or infinity in {shown(broken)}"
    return (
        f"{name} is the first to return such values; the largest weights are in {_largest(model)}"
    )


def _largest(model: nn.Module) -> str:
    """Returns the tensors with the largest values: what overflows first may be far from them."""
    values = {
        name: float(tensor.abs().max())
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and tensor.numel()
    }
    finite = {name: value for name, value in values.items() if value < float("inf")}
    most = sorted(finite, key=finite.__getitem__, reverse=True)[:_LARGEST]
    return ", ".join(f"{name} ({finite[name]:.2g})" for name in most)


def _variances(module: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: values
        for name, values in module.named_buffers()
        if name.rpartition(".")[2] == _VARIANCE
    }


@contextmanager
def _watched(model: nn.Module, first: list[tuple[str, nn.Module]]) -> Iterator[None]:
    """Notes the modules that make what is not finite of what is, innermost first."""

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if _finite(inputs) and not _finite(output):
                first.append((name, module))

        return hook

    hooks = [
        module.register_forward_hook(note(name)) for name, module in model.named_modules() if name
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _finite(value: object) -> bool:
    import torch

    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    return all(map(_finite, value)) if isinstance(value, (tuple, list)) else True
