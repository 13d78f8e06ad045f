"""What a timm network has, asked without weights or photos: its cuts, pooling and size.

The network lives on PyTorch's meta device, which computes shapes only: a fraction of a second and
no memory, however large it is. The choice of a cut is made of this, never of a network's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from builders.export.backbone import import_timm
from builders.export.cuts import fitting_cuts
from zoo.schema.manifest import Argument, Cut
from zoo.util.causes import cause_of
from zoo.util.errors import ExportError


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What a network has.

    Attributes:
        cuts: The cuts that it has, with the width of their features.
        pooling: How its own head pools tokens or a map (``token``, ``avg``, ``map``); empty if it
            does not say.
        normalises_pooled: Whether its head normalises what it pooled.
        parameters: Number of its weights, without those of the classifier.
        elements: Elements of the largest tensor that one photo needs.
    """

    cuts: Mapping[Cut, int]
    pooling: str
    normalises_pooled: bool
    parameters: int
    elements: int


def examine(name: str, make: Callable[[], nn.Module], size: tuple[int, int]) -> Anatomy:
    """Examines a network.

    Args:
        name: Its name, for messages.
        make: Makes it, on the device that is the default at the time.
        size: Height and width of its input in pixels.

    Raises:
        ExportError: It can't be made, or does not run at this size.
    """
    # Whatever a network raises: it is code of others, and one that fails must not end a list.
    try:
        with torch.device("meta"):
            model: Any = make().eval()
        images = torch.empty(1, 3, *size, device="meta")
        with torch.inference_mode(), _Largest() as largest:
            features = model.forward_features(images)
    except Exception as error:
        raise ExportError(
            f"{name} does not run at {size[0]}x{size[1]} pixels: {cause_of(error)}"
        ) from error
    model.forward_features = lambda *_, **__: (
        features
    )  # the same for every cut, and most of the work
    classifier = model.get_classifier() if hasattr(model, "get_classifier") else None
    return Anatomy(
        cuts=fitting_cuts(model, images),
        pooling=_pooling(model),
        normalises_pooled=_normalises_pooled(model),
        parameters=_count(model) - _count(classifier),
        elements=max(largest.elements, images.numel()),
    )


class Anatomies:
    """Anatomies of timm's networks; the weights of one network share one."""

    def __init__(self) -> None:
        self._known: dict[str, Anatomy | ExportError] = {}

    def of(self, name: str, size: tuple[int, int], arguments: Mapping[str, Argument]) -> Anatomy:
        """Returns the anatomy of a network.

        Args:
            name: timm's name, with the tag.
            size: Height and width of its input in pixels.
            arguments: What it is made with.

        Raises:
            ExportError: It can't be made, or does not run at this size.
        """
        timm = import_timm()
        # Of what a tag states, only the number of classes changes its network.
        classes = timm.get_pretrained_cfg(name).num_classes
        key = repr((name.partition(".")[0], classes, size, sorted(arguments.items())))
        if key not in self._known:
            make = partial(timm.create_model, name, pretrained=False, **arguments)
            try:
                self._known[key] = examine(name, make, size)
            except ExportError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, ExportError):
            raise known
        return known


def choose_cut(anatomy: Anatomy) -> Cut | None:
    """Returns the cut at which a network gives what it was trained to give; None if it has none.

    That is what it pools itself. A hidden layer between pooling and classifier belongs to the
    classifier: it was trained for those classes.
    """
    has = anatomy.cuts
    if Cut.CLS_TOKEN in has and anatomy.pooling == "token":
        return Cut.CLS_TOKEN
    if Cut.POOLED in has and not anatomy.normalises_pooled:
        return Cut.POOLED
    preferred = (Cut.PRE_LOGITS, Cut.POOLED, Cut.CLS_TOKEN, Cut.FLATTENED)
    return next((cut for cut in preferred if cut in has), None)


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the size of the largest tensor that is computed.

    Attributes:
        elements: Its number of elements.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Any = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


def _pooling(model: Any) -> str:
    """Returns timm's word for a network's pooling, from the network or from its head."""
    for owner in (model, getattr(model, "head", None)):
        pool = getattr(owner, "global_pool", None)
        kind = pool if isinstance(pool, str) else getattr(pool, "pool_type", None)
        if isinstance(kind, str) and kind:
            return kind
    return ""


def _normalises_pooled(model: Any) -> bool:
    norms = (getattr(model, "fc_norm", None), getattr(getattr(model, "head", None), "norm", None))
    return any(map(_acts, norms))


def _acts(module: object) -> bool:
    return isinstance(module, nn.Module) and not isinstance(module, nn.Identity)


def _count(module: object) -> int:
    parameters = module.parameters() if isinstance(module, nn.Module) else ()
    return sum(parameter.numel() for parameter in parameters)
