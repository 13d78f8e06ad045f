"""Checks that every residual branch of a network reaches its features.

Networks start with many of their branches switched off: a scale of 0 or 1e-6 after the branch,
which training turns up. With random weights such a branch is computed and then forgotten, so
whatever is measured on the network says nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from builders.export.backbone import Backbone
from zoo.util.errors import ExportError

LEAST = 1e-4
"""Least relative change of the features without a branch. The features of ``seeded-1`` ConvNeXts
changed by 1e-6 without one, and fp32 rounds to 1e-7."""

_PROBES = 3  # random directions: a derivative is small in all of them only if it is small
_ADDITIONS = frozenset(
    {
        torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__,
        torch.Tensor.__iadd__, torch.Tensor.__radd__,
    }
)  # fmt: skip
_IN_PLACE = frozenset({torch.Tensor.add_, torch.Tensor.__iadd__})


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A sum of two activations, one of which is a residual branch.

    Attributes:
        number: In the order of computation.
        module: Name of the module that adds them.
        change: Relative change of the features without one of them, the one that matters less.
    """

    number: int
    module: str
    change: float


def check_alive(model: str, backbone: Backbone, image: torch.Tensor) -> str | None:
    """Checks that the features of a photo depend on every residual branch.

    Args:
        model: Manifest id, for messages.
        backbone: The network.
        image: A normalised photo, ``(1, 3, H, W)``.

    Returns:
        The weakest branch, in words; None if the network has none.

    Raises:
        ExportError: A branch does not reach the features.
    """
    branches = find_branches(backbone, image)
    if not branches:
        return None
    dead = [branch for branch in branches if not branch.change >= LEAST]
    if dead:
        first = dead[0]
        raise ExportError(
            f"{model}: {len(dead)} of {len(branches)} residual branches of the seeded network are "
            f"dead: without the one in {first.module or 'the network'} its features change by "
            f"{first.change:.0e}, and by less than {LEAST:.0e} without each",
            hint="random weights would prove nothing of them: builders/weights/seeded.py has to "
            "draw what scales them",
        )
    weakest = min(branches, key=lambda branch: branch.change)
    return (
        f"{len(branches)} residual branches; without the weakest, in {weakest.module}, features "
        f"change by {weakest.change:.1e}"
    )


def find_branches(backbone: Backbone, image: torch.Tensor) -> list[Branch]:
    """Finds the residual branches of a network, and how far its features depend on each.

    A branch is wherever two activations of the same shape are added that both depend on the photo.
    Which of the two is the shortcut is not asked: the features must change without either.

    The change is estimated for all branches at once, from the derivative by a factor of each
    activation. Where the estimate is small, the branch is cut and the features computed again.

    Args:
        backbone: The network.
        image: A normalised photo, ``(1, 3, H, W)``.
    """
    with _not_in_place(backbone), _names(backbone) as names, torch.enable_grad():
        gates = _Gates(names)
        with gates:
            features = backbone(image.clone().requires_grad_())
        estimates = _estimate(features, gates.factors)
    features = features.detach()
    del gates.factors
    branches = []
    for number, (module, changes) in enumerate(zip(gates.modules, estimates, strict=True)):
        if changes is None:  # the features do not use the sum
            continue
        change = min(changes)
        if not change >= LEAST:
            change = min(
                max(changes[side], _without(backbone, image, features, number, side))
                for side in (0, 1)
            )
        branches.append(Branch(number=number, module=module, change=change))
    return branches


def _estimate(
    features: torch.Tensor, factors: list[torch.Tensor]
) -> list[tuple[float, float] | None]:
    """Returns the relative derivative of the features by each pair of factors."""
    if not factors:
        return []
    squares: list[torch.Tensor | None] = [None] * len(factors)
    generator = torch.Generator().manual_seed(0)
    for probe in range(_PROBES):
        direction = torch.randn(features.shape, generator=generator) / features.detach().norm()
        slopes = torch.autograd.grad(
            features,
            factors,
            direction,
            retain_graph=probe < _PROBES - 1,
            allow_unused=True,
        )
        for number, slope in enumerate(slopes):
            if slope is not None:
                before = squares[number]
                squares[number] = slope**2 if before is None else before + slope**2
    roots = [None if square is None else (square / _PROBES).sqrt().tolist() for square in squares]
    return [None if root is None else (root[0], root[1]) for root in roots]


def _without(
    backbone: Backbone, image: torch.Tensor, features: torch.Tensor, number: int, side: int
) -> float:
    """Returns the relative change of the features without an activation of a sum."""
    with _not_in_place(backbone), _names(backbone) as names, torch.enable_grad():
        gates = _Gates(names, cut=(number, side))
        with gates:
            changed = backbone(image.clone().requires_grad_()).detach()
    return float((changed - features).norm() / features.norm())


class _Gates(TorchFunctionMode):
    """Multiplies both activations of every residual sum by a factor of 1, or by 0 where cut.

    Args:
        names: Names of the modules that are being computed, the innermost last.
        cut: Number of a sum, and which of its two activations is cut.

    Attributes:
        factors: The two factors of each sum.
        modules: The module of each.
    """

    def __init__(self, names: list[str], cut: tuple[int, int] | None = None) -> None:
        super().__init__()
        self._names = names
        self._cut = cut
        self.factors: list[torch.Tensor] = []
        self.modules: list[str] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Any = None,
    ) -> Any:
        if func not in _ADDITIONS or kwargs or not _is_residual(args):
            return func(*args, **(kwargs or {}))
        first, second = args
        factors = torch.ones(2)
        if self._cut is not None and self._cut[0] == len(self.factors):
            factors[self._cut[1]] = 0
        factors.requires_grad_(self._cut is None)
        self.factors.append(factors)
        self.modules.append(self._names[-1] if self._names else "")
        # A copy where the sum replaces it: its derivative needs the activation as it was.
        before = first.clone() if func in _IN_PLACE else first
        total = before * factors[0] + second * factors[1]
        return first.copy_(total) if func in _IN_PLACE else total


def _is_residual(arguments: tuple[Any, ...]) -> bool:
    if len(arguments) != 2 or not all(isinstance(one, torch.Tensor) for one in arguments):
        return False
    first, second = arguments
    # The photo requires a derivative, and so does what depends on it.
    depend: bool = first.requires_grad and second.requires_grad
    return depend and first.dim() > 1 and first.shape == second.shape


@contextmanager
def _not_in_place(network: nn.Module) -> Iterator[None]:
    """Has activation functions write new tensors: derivatives need what they would overwrite."""
    layers: list[Any] = [m for m in network.modules() if getattr(m, "inplace", False) is True]
    for layer in layers:
        layer.inplace = False
    try:
        yield
    finally:
        for layer in layers:
            layer.inplace = True


@contextmanager
def _names(network: Backbone) -> Iterator[list[str]]:
    """Keeps a list of the names of the modules that are being computed, the innermost last."""
    running: list[str] = []

    def enter(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, arguments: running.append(name)

    def leave(module: nn.Module, arguments: Any, result: Any) -> None:
        running.pop()

    with ExitStack() as hooks:
        for name, module in network.model.named_modules():
            if name:
                hooks.callback(module.register_forward_pre_hook(enter(name)).remove)
                hooks.callback(module.register_forward_hook(leave).remove)
        yield running
