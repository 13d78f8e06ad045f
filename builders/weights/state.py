"""Loads files of weights into timm models.

Every tensor that the features depend on must be in the file, and every tensor of the file must have
a place in the model. What the cut throws away, such as a classifier that was replaced in
fine-tuning, may be missing or of another shape.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import assert_never

from builders.weights import checkpoint, finite, resampling
from builders.weights.checkpoint import Found, State, shown
from builders.weights.reading import read_file
from zoo.schema.manifest import FileWeights, HubWeights, Manifest, PypiWeights, sides
from zoo.util.causes import cause_of
from zoo.util.errors import WeightsError

if TYPE_CHECKING:
    import torch
    from torch import nn

_OTHER_SHAPE = "shape"  # in the reasons why a tensor can't be loaded
_OTHER_TYPE = "of type"  # there, too
_NAMED = 8  # tensors that the features depend on: finding one costs a run of the network


def read_state(path: Path, suffix: str | None = None) -> dict[str, torch.Tensor]:
    """Reads a plain state dict; see :func:`read_file`.

    Raises:
        WeightsError: The file can't be read safely, or holds something else.
    """
    state = checkpoint.state_dicts(read_file(path, suffix)).get("")
    if state is None:
        raise WeightsError(f"{path}: not a state dict")
    return state


def load_state(model: nn.Module, manifest: Manifest, path: Path) -> tuple[str, ...]:
    """Loads the weights of a manifest into its model.

    Tensors that the features do not depend on and that the file lacks become NaN, so that nothing
    can be computed from random ones.

    Args:
        model: From :func:`builders.export.backbone.create`.
        manifest: States how the file names its tensors and which of them to ignore.
        path: The file of weights.

    Returns:
        What was recognised in the file and what was left out, in words.

    Raises:
        WeightsError: The file's tensors do not match the model's.
    """
    what = f"{manifest.id}: {path.name}"
    loaded = read_file(path)
    found, notes = _find(what, manifest, checkpoint.state_dicts(loaded), model)
    if getattr(manifest.weights, "state", "") is None:  # a choice that it could make
        shapes = [tuple(tensor.shape) for tensor in model.parameters()]
        checkpoint.check_unnamed(what, checkpoint.unnamed(loaded), shapes)
    given, expected = found.tensors, model.state_dict()
    foreign = sorted(given.keys() - expected.keys())
    of_head = [name for name in foreign if name.startswith(_classifiers(model))]
    unplaced = sorted(set(foreign) - set(of_head))
    fitting = {
        name: tensor
        for name, tensor in given.items()
        if name in expected and _misfit(name, given, expected) is None
    }
    fitting, resized = _with_resampled(model, manifest, given, fitting)
    model.load_state_dict(fitting, strict=False)
    notes += resized
    _check_finite(what, model, manifest, fitting)  # first: of NaN, everything seems to be needed
    absent = {name: _why(name, given, expected) for name in expected.keys() - fitting.keys()}
    problems = [absent[name] for name in _needed(model, manifest, absent)]
    if unplaced:
        raise WeightsError(
            f"{what} does not fit timm's {manifest.timm_name}: it has tensors that the model does "
            f"not have: {shown([found.prefix + name for name in unplaced])}{_fit(given, expected)}",
            hint=_how_to_place(manifest, found, unplaced, expected, problems),
        )
    if problems:
        raise WeightsError(
            f"{what} does not fit timm's {manifest.timm_name}: the cut "
            f"'{manifest.backbone.cut}' needs {'; '.join(problems)}"
            f"{', and perhaps more' if len(problems) == _NAMED else ''}{_fit(given, expected)}",
            hint=_how_to_load(manifest, problems),
        )
    unused = [*absent.values(), *(f"{name} (not in timm's model)" for name in of_head)]
    if unused:
        notes += (f"not needed by the cut '{manifest.backbone.cut}': {shown(unused)}",)
    return notes + _types(fitting.values())


def _with_resampled(
    model: nn.Module, manifest: Manifest, given: State, fitting: State
) -> tuple[State, tuple[str, ...]]:
    """Returns the tensors to load, with those that are resampled to the network's size, and a note.

    Only arguments of the network give it another size than that of its weights.
    """
    if not manifest.arguments:
        return fitting, ()
    expected, head = model.state_dict(), _classifiers(model)
    misfits = {
        name: given[name].to(expected[name].dtype)
        for name in given.keys() & expected.keys() - fitting.keys()
        if not name.startswith(head) and given[name].is_floating_point()
    }
    resampled = resampling.resample(manifest, misfits, expected) if misfits else {}
    if not resampled:
        return fitting, ()
    note = f"resampled to the size of the input, as timm does: {shown(sorted(resampled))}"
    return {**fitting, **resampled}, (note,)


def _find(
    what: str, manifest: Manifest, states: dict[str, State], model: nn.Module
) -> tuple[Found, tuple[str, ...]]:
    """Returns the model's tensors in a file, and what was recognised."""
    weights, expected = manifest.weights, list(model.state_dict())
    stated: str | None = None
    ignored: tuple[str, ...] = ()
    opened = {name: checkpoint.unwrapped(state, expected) for name, state in states.items()}
    states = {name: state for name, (state, _) in opened.items()}
    match weights:
        case PypiWeights():
            stated = weights.state
            if weights.naming == "lukemelas":
                states = {n: lukemelas_to_timm(s, set(expected)) for n, s in states.items()}
        case FileWeights():
            stated, ignored = weights.state, weights.ignore
        case HubWeights():
            ignored = weights.ignore
        case _:
            assert_never(weights)
    chosen, notes = checkpoint.choose_state(what, states, expected, stated)
    found = checkpoint.find(what, states[chosen], expected, weights.prefix, ignored)
    wrappers = opened[chosen][1]
    if wrappers:
        notes += (f"'{', '.join(wrappers)}' within names, which was removed",)
    return found, notes + found.notes


def _fit(given: Collection[str], expected: Collection[str]) -> str:
    return f" ({len(set(given) & set(expected))} of the model's {len(expected)} tensors are in it)"


def _misfit(name: str, given: State, expected: State) -> str | None:
    """Returns what is wrong with a tensor of the file; None if its values can be loaded.

    PyTorch would load whatever can be cast: whole numbers, which are quantised weights without
    their scales, as if they were the weights.
    """
    import torch

    tensor, wanted = given[name], expected[name]
    if tensor.shape != wanted.shape:
        return f"{_OTHER_SHAPE} {tuple(tensor.shape)}, not {tuple(wanted.shape)}"
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        return "without plain values: sparse, quantised or empty"
    if tensor.is_complex() or (wanted.is_floating_point() and not tensor.is_floating_point()):
        kinds = [str(kind.dtype).removeprefix("torch.") for kind in (tensor, wanted)]
        return f"{_OTHER_TYPE} {kinds[0]}, not {kinds[1]}"
    return None


def _why(name: str, given: State, expected: State) -> str:
    return f"{name} ({_misfit(name, given, expected) if name in given else 'missing'})"


def _names(manifest: Manifest) -> str:
    """Returns a command that prints timm's names, as part of a hint."""
    return (
        f"The names that timm gives {manifest.arch}: .venv/bin/python -c 'from "
        "builders.export.backbone import import_timm as t; "
        f'print(*t().create_model("{manifest.arch}").state_dict())\''
    )


def _how_to_load(manifest: Manifest, problems: list[str]) -> str:
    """Returns what to do about tensors that the features depend on and that can't be loaded."""
    if any(_OTHER_TYPE in text for text in problems):
        return (
            "they are quantised, or something else than weights: save them as floating-point "
            "numbers, and quantised ones times their scales"
        )
    if all(f"({_OTHER_SHAPE} " in text for text in problems):
        return (
            "the names are timm's, but the tensors are those of a network of another size, or with "
            "other than 3 input channels: state the arch that was trained, and in [arguments] what "
            "was given to timm's create_model"
        )
    return f"weights.ignore can't help: the features depend on them. {_names(manifest)}"


_ADAPTER = re.compile(r"\b(lora_\w+|base_layer|parametrizations|weight_g|weight_v)\b")
"""Names of tensors that others are computed from, by peft and PyTorch."""


def _how_to_place(
    manifest: Manifest,
    found: Found,
    unplaced: list[str],
    expected: Collection[str],
    problems: list[str],
) -> str:
    """Returns what to do about tensors that the model has no place for."""
    if any(map(_ADAPTER.search, unplaced)):
        return (
            "the weights are computed from them: merge them in training before you save, such as "
            "by peft's merge_and_unload() or torch's remove_parametrizations()"
        )
    if problems:
        return (
            f"the features depend on what it lacks: {'; '.join(problems)}: if those are its "
            f"names, save it with timm's. {_names(manifest)}"
        )
    prefixes = [prefix for prefix in found.others if not found.prefix]
    choice = (
        "; or choose those instead: " + " or ".join(f'prefix = "{name}"' for name in prefixes)
        if prefixes
        else ""
    )
    return (
        "if the backbone does not use them, state in the manifest, under [weights]: "
        f"ignore = {_prefixes_of(found.prefix, unplaced, expected)}{choice}"
    )


def _prefixes_of(prefix: str, names: Iterable[str], expected: Collection[str]) -> list[str]:
    """Returns the shortest prefixes that cover names of the file, and no tensor of the model."""
    prefixes = set()
    for name in names:
        first = f"{name.partition('.')[0]}."
        taken = any(other.startswith(first) for other in expected)
        prefixes.add(prefix + (name if taken or "." not in name else first))
    return sorted(prefixes)


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    """Returns the prefixes of the names of a timm model's classifiers."""
    stated = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = (stated,) if isinstance(stated, str) else tuple(stated)
    return tuple(f"{name}." for name in names)


def _needed(model: nn.Module, manifest: Manifest, names: Collection[str]) -> list[str]:
    """Returns the tensors among some that the features depend on, at most eight of them.

    A tensor of NaN makes every feature NaN that depends on it. Those that none depends on stay so.
    """
    import torch

    tensors = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name in names and not name.endswith("num_batches_tracked")  # for training only
    }
    values = {name: tensor.nan_to_num() for name, tensor in tensors.items()}
    needed = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]

    def depends(tried: Iterable[str]) -> bool:
        for name in tensors:
            tensors[name].copy_(values[name])
        for name in tried:
            tensors[name].fill_(torch.nan)
        return bool(_features(model, manifest).isnan().any())

    with torch.no_grad():
        floats = sorted(tensors.keys() - set(needed))
        if floats and depends(floats):
            for name in floats:
                if len(needed) < _NAMED and depends([name]):
                    needed.append(name)
            depends(floats)
    return sorted(needed)[:_NAMED]


def _features(model: nn.Module, manifest: Manifest) -> torch.Tensor:
    """Returns what every cut takes its features from, for a grey image."""
    import torch

    network: Any = model.eval()
    image = torch.zeros(1, 3, *sides(manifest.preprocess.input_size))
    features: torch.Tensor = network.forward_features(image)
    cut = manifest.backbone.cut
    if cut.uses_head:
        features = network.forward_head(features, pre_logits=cut.feeds_classifier)
    return features


def _check_finite(what: str, model: nn.Module, manifest: Manifest, loaded: State) -> None:
    """Checks that the features depend on no NaN or infinity, and that none is computed.

    Raises:
        WeightsError: They do.
    """
    broken = [
        name
        for name, tensor in loaded.items()
        if tensor.is_floating_point() and not tensor.float().isfinite().all()
    ]
    if broken and (needed := _needed(model, manifest, broken)):
        raise WeightsError(
            f"{what}: it holds NaN or infinity in {shown(needed)}",
            hint="its training diverged: use an earlier checkpoint",
        )
    if reason := finite.why_not_finite(model, lambda: _features(model, manifest)):
        raise WeightsError(f"{what}: its features are not finite: {reason}", hint=finite.HINT)


def _types(tensors: Iterable[torch.Tensor]) -> tuple[str, ...]:
    """Says which types other than fp32 the tensors are stored in."""
    types = {
        str(tensor.dtype).removeprefix("torch.") for tensor in tensors if tensor.is_floating_point()
    } - {"float32"}
    return (f"stored as {', '.join(sorted(types))}, computed in float32",) if types else ()


def load_seeded(model: nn.Module, manifest: Manifest, path: Path) -> None:
    """Loads a seeded state: safetensors in timm's naming, whatever the manifest's source is.

    Raises:
        WeightsError: The file's tensors do not match the model's.
    """
    try:
        model.load_state_dict(read_state(path, ".safetensors"), strict=True)
    except RuntimeError as error:
        raise WeightsError(
            f"{manifest.id}: {path.name} does not fit timm's {manifest.timm_name}: "
            f"{cause_of(error)}"
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
