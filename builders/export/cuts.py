"""Checks that a cut is what its name says, by timm's own methods.

A cut that does not fit runs nevertheless: the first token of a network without a class token is a
patch, the second axis of a channels-last map is a row of it. The network is asked what it has,
whatever its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from typing_extensions import assert_never

from builders.photos import bundled
from builders.verify.metrics import compare_rows
from builders.verify.misses import find_misses
from builders.weights.finite import HINT, why_not_finite
from zoo.inference.preprocess import normalise
from zoo.schema.manifest import Cut, Manifest
from zoo.schema.precisions import Precision
from zoo.util.causes import cause_of
from zoo.util.errors import ExportError

_CLOSE = 1e-4  # relative; two orders of summation differ by less, two things called alike by more
_NETWORK_ERRORS = (RuntimeError, AssertionError, IndexError, AttributeError, ValueError)
_CLASS_TOKEN = "cls_token"  # timm's name of the parameter; some networks add a number to it


class UnfitError(Exception):
    """A cut that a network does not have; the message says why."""


def check_cut(manifest: Manifest, model: nn.Module) -> torch.Tensor:
    """Checks on real photos that a network has the cut of its manifest.

    Not on a blank image, whose tokens are much alike.

    Returns:
        Features of the first golden photos, from timm's own methods.

    Raises:
        ExportError: It does not; the hint names the cuts that it has, with their widths. Or its
            features are not finite.
    """
    images = first_photos(manifest)
    cut = manifest.backbone.cut
    check_finite(manifest, model, images)  # first: of NaN, no two things are alike
    try:
        return timm_features(model, cut, images)
    except UnfitError as error:
        raise ExportError(
            f"{manifest.id}: backbone.cut: '{cut}' does not fit {manifest.timm_name}: {error}",
            hint=_fitting(model, images),
        ) from error
    except _NETWORK_ERRORS as error:
        raise ExportError(
            f"{manifest.id}: preprocess.input_size: {manifest.timm_name} does not run at "
            f"{manifest.preprocess.pixels} pixels: {cause_of(error)}",
            hint="does its name, or timm's pretrained_cfg, name another size?",
        ) from error


def first_photos(manifest: Manifest) -> torch.Tensor:
    """Returns the golden photos that a cut is checked on: those that PyTorch computes first."""
    pixels = bundled.golden_photos(manifest.preprocess)[: bundled.GOLDEN_BATCH]
    return torch.from_numpy(normalise(pixels, manifest.preprocess.plain))


@contextmanager
def remembering(model: nn.Module) -> Iterator[None]:
    """Has a network compute the batch that it computes first only once.

    What checks a cut and what makes golden features begin with the same photos.

    Args:
        model: A timm network in evaluation mode.
    """
    network: Any = model
    compute = network.forward_features
    known: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward_features(images: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if known and not args and not kwargs and torch.equal(images, known[0][0]):
            return known[0][1].clone()  # a head may overwrite it
        features = compute(images, *args, **kwargs)
        # What is not finite is computed again, by those who ask where it comes from.
        if not known and isinstance(features, torch.Tensor) and features.isfinite().all():
            known.append((images, features.clone()))
        return features

    own = vars(model).get("forward_features")
    network.forward_features = forward_features
    try:
        yield
    finally:
        if own is None:
            del network.forward_features
        else:
            network.forward_features = own


def check_finite(manifest: Manifest, model: nn.Module, images: torch.Tensor) -> None:
    """Checks that a network's features of photos are finite, whether the cut fits or not.

    Raises:
        ExportError: They are not; names the tensors responsible.
    """
    reason = why_not_finite(model, lambda: features_at(manifest.backbone.cut, model, images))
    if reason is not None:
        raise ExportError(
            f"{manifest.id}: PyTorch's own features are not finite: {reason}", hint=HINT
        )


def check_golden(
    manifest: Manifest, expected: torch.Tensor, features: npt.NDArray[np.float32]
) -> None:
    """Compares golden features with what timm's own methods return for the same photos.

    Args:
        manifest: The model.
        expected: What :func:`check_cut` returned, of the first photos.
        features: The features of all golden photos, from
            :class:`~builders.export.backbone.Backbone`.

    Raises:
        ExportError: They differ by more than an fp32 engine may.
    """
    rows = expected.numpy()
    numbers = compare_rows(features[: len(rows)], rows, rows)
    if missed := find_misses(numbers, manifest.kept_by(Precision.FP32)):
        raise ExportError(
            f"{manifest.id}: backbone.cut: golden features at '{manifest.backbone.cut}' differ "
            "from timm's own: " + "; ".join(missed),
            hint="the cut in builders/export/cuts.py is not what its name says",
        )


def features_at(cut: Cut, model: Any, images: torch.Tensor) -> torch.Tensor:
    """Returns features at a cut, as a backbone is exported; :func:`timm_features` is its check.

    Args:
        cut: Where features are taken.
        model: A timm network that has this cut.
        images: ``(N, 3, H, W)`` normalised photos.

    Returns:
        ``(N, feature_dim)``.
    """
    features: torch.Tensor = model.forward_features(images)
    match cut:
        case Cut.POOLED:
            return features.mean((2, 3))
        case Cut.FLATTENED:
            return features.flatten(1)
        case Cut.CLS_TOKEN:
            return features[:, 0]
        case Cut.PRE_LOGITS:
            pre_logits: torch.Tensor = model.forward_head(features, pre_logits=True)
            return pre_logits
        case Cut.PROJECTED:
            projected: torch.Tensor = model.forward_head(features)
            return projected
        case _:
            assert_never(cut)


def timm_features(model: nn.Module, cut: Cut, images: torch.Tensor) -> torch.Tensor:
    """Returns features at a cut, computed by timm's own methods and modules.

    Args:
        model: A timm network in evaluation mode.
        cut: Where features are taken.
        images: ``(N, 3, H, W)`` normalised photos.

    Returns:
        ``(N, feature_dim)``.

    Raises:
        UnfitError: The network has no such cut.
    """
    with torch.inference_mode():
        match cut:
            case Cut.POOLED:
                return _pooled(model, images)
            case Cut.FLATTENED:
                features = _tensor(model, images)
                return features.reshape(len(features), -1)
            case Cut.CLS_TOKEN:
                return _class_token(model, images)
            case Cut.PRE_LOGITS:
                return _pre_logits(model, images)
            case Cut.PROJECTED:
                return _projected(model, images)
            case _:
                assert_never(cut)


def fitting_cuts(model: nn.Module, images: torch.Tensor) -> dict[Cut, int]:
    """Returns the cuts that a network has, and their widths.

    On the meta device it is asked what it has, but not whether the values bear that out.
    """
    widths = {}
    for cut in Cut:
        try:
            widths[cut] = timm_features(model, cut, images).shape[1]
        except (UnfitError, *_NETWORK_ERRORS):
            continue
    return widths


def _fitting(model: nn.Module, images: torch.Tensor) -> str:
    """Returns which cuts a network has, and their widths, as a hint."""
    widths = fitting_cuts(model, images)
    # The flattened map is the last resort, though the enum has it second.
    cuts = sorted(widths, key=lambda cut: cut is Cut.FLATTENED)
    fitting = [f"'{cut}' (feature_dim = {widths[cut]})" for cut in cuts]
    return f"this network has {' or '.join(fitting)}" if fitting else "no cut fits this network"


def _tensor(model: Any, images: torch.Tensor) -> torch.Tensor:
    features = model.forward_features(images)
    if not isinstance(features, torch.Tensor):
        raise UnfitError(f"forward_features returns a {type(features).__name__}, not one tensor")
    return features


def _pooled(model: Any, images: torch.Tensor) -> torch.Tensor:
    features = _tensor(model, images)
    shape = tuple(features.shape[1:])
    if len(shape) != 3:
        raise UnfitError(f"forward_features returns {_tokens(shape)}, not a map")
    channels = getattr(model, "num_features", shape[0])
    if getattr(model, "output_fmt", "NCHW") != "NCHW" or shape[0] != channels:
        raise UnfitError(f"forward_features returns a map of shape {shape}, channels last")
    mean = nn.functional.adaptive_avg_pool2d(features, 1).flatten(1)
    pool = _own_pooling(model)
    if pool is not None and not _alike(pool(features), mean):
        raise UnfitError(f"it pools with {_name(pool)}, not by the mean over the map")
    return mean


def _own_pooling(model: Any) -> nn.Module | None:
    """Returns the module that pools a network's map; None if it has none, or pools in code."""
    from timm.layers import AttentionPool2d, RotAttentionPool2d

    head = getattr(model, "head", None)
    if isinstance(head, (AttentionPool2d, RotAttentionPool2d)):
        pooling: nn.Module = head
        return pooling
    for owner in (model, head):
        pool = getattr(owner, "global_pool", None)
        if isinstance(pool, nn.Module):
            return pool if _acts(pool) and getattr(pool, "pool_type", None) != "" else None
        if isinstance(pool, str) and pool not in ("", "avg"):
            raise UnfitError(f"it pools by '{pool}', not by the mean over the map")
    return None


def _class_token(model: Any, images: torch.Tensor) -> torch.Tensor:
    features = _tensor(model, images)
    shape = tuple(features.shape[1:])
    if len(shape) != 2:
        raise UnfitError(f"forward_features returns a map of shape {shape}, no tokens")
    prefix = getattr(model, "num_prefix_tokens", None)
    names = (name.rpartition(".")[2] for name, _ in model.named_parameters())
    if prefix == 0 or not any(name.startswith(_CLASS_TOKEN) for name in names):
        first = "a register" if prefix else "a patch of the photo"
        raise UnfitError(f"it has no class token; its first token is {first}")
    attention = getattr(model, "attn_pool", None)
    if isinstance(attention, nn.Module) and not isinstance(attention, nn.Identity):
        raise UnfitError(f"it pools all its tokens with {_name(attention)}")
    token = features[:, 0]
    if not _is_normalised(model) and not _feeds_classifier(model, features, token):
        raise UnfitError(
            f"its class token is not normalised: it pools by '{getattr(model, 'global_pool', '')}' "
            "and normalises the result"
        )
    return token


def _is_normalised(model: Any) -> bool:
    """Whether ``forward_features`` ends with the network's last norm."""
    return _acts(getattr(model, "norm", None)) and not _acts(getattr(model, "fc_norm", None))


def _feeds_classifier(model: Any, features: torch.Tensor, token: torch.Tensor) -> bool:
    return _alike(model.forward_head(features, pre_logits=True), token)


def _pre_logits(model: Any, images: torch.Tensor) -> torch.Tensor:
    if not hasattr(model, "forward_head"):
        raise UnfitError("it has no forward_head")
    features: torch.Tensor = model.forward_head(model.forward_features(images), pre_logits=True)
    if not isinstance(features, torch.Tensor) or features.dim() != 2:
        shape = tuple(getattr(features, "shape", ()))[1:]
        raise UnfitError(f"it does not pool: forward_head returns features of shape {shape}")
    classifier = model.get_classifier() if hasattr(model, "get_classifier") else None
    # A distilled network has two classifiers; timm returns the mean of what they get.
    is_single = isinstance(classifier, nn.Module) and not isinstance(classifier, nn.ModuleList)
    if is_single and not _reaches_classifier(model, classifier, features, images):
        raise UnfitError("forward_head(pre_logits=True) does not return what its classifier gets")
    return features


def _projected(model: Any, images: torch.Tensor) -> torch.Tensor:
    from timm.data import infer_imagenet_subset

    if not getattr(model, "num_classes", 0):
        raise UnfitError("its head projects nothing")
    if classes := infer_imagenet_subset(model):
        raise UnfitError(f"its head returns logits of the classes of {classes}")
    features: torch.Tensor = model(images)
    if not isinstance(features, torch.Tensor) or features.dim() != 2:
        raise UnfitError("its head returns something else than one row per image")
    return features


def _reaches_classifier(
    model: Any, classifier: Any, features: torch.Tensor, images: torch.Tensor
) -> bool:
    """Whether the classifier gets features, or something of which it makes the same logits.

    Not every network does both: one adds the logits of an auxiliary head, another classifies all
    tokens and then pools.
    """
    features = features[:1]  # the network is computed anew, which takes its time
    inputs: list[torch.Tensor] = []
    hook = classifier.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        expected = model(images[:1]).flatten(1)
    finally:
        hook.remove()
    if inputs and _alike(inputs[0].flatten(1), features):
        return True
    if not isinstance(classifier, (nn.Linear, nn.Conv2d)):
        return True  # a head that pools, too: it says nothing about features
    is_map = isinstance(classifier, nn.Conv2d)
    return _alike(classifier(features[:, :, None, None] if is_map else features), expected)


def _acts(module: Any) -> bool:
    return isinstance(module, nn.Module) and not isinstance(module, nn.Identity)


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether every row of two tensors is the same up to rounding.

    On the meta device, which computes shapes only, whether they can be.
    """
    one, other = one.flatten(1), other.flatten(1)
    if one.shape != other.shape or one.is_meta:
        return one.shape == other.shape
    errors = (one - other).norm(dim=1) / other.norm(dim=1).clamp_min(1e-12)
    return bool((errors <= _CLOSE).all())


def _tokens(shape: tuple[int, ...]) -> str:
    return f"tokens of shape {shape}" if len(shape) == 2 else f"features of shape {shape}"


def _name(module: nn.Module) -> str:
    kind = getattr(module, "pool_type", "")
    return f"{type(module).__name__} '{kind}'" if kind else type(module).__name__
