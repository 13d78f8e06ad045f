"""Finds a model's state dict in a checkpoint: which entry holds it, and what precedes its names.

Training code wraps state dicts in two ways. An entry of a dictionary holds them (``state_dict``,
``model``, ``ema``), and modules around the model put prefixes before its names (``module.`` of data
parallelism, ``_orig_mod.`` of ``torch.compile``, ``backbone.`` of the user's own network). Both are
recognised by the names that they leave, whatever they are called. Where two fit, the manifest has
to choose: they are different weights. Modules around single blocks put names in the middle; only
those that PyTorch itself writes are removed, for others (adapters) change what a block computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.util.errors import WeightsError
from zoo.util.names import perhaps

if TYPE_CHECKING:
    import torch

_DEPTH = 3  # of dictionaries in dictionaries
_SHOWN = 8
_WRAPPERS = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "module"})
State = dict[str, "torch.Tensor"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A model's tensors in a checkpoint.

    Attributes:
        tensors: By timm's names.
        prefix: What preceded those names in the file.
        others: Other prefixes under which it holds the model.
        notes: What was recognised and left out, in words.
    """

    tensors: State
    prefix: str
    others: tuple[str, ...]
    notes: tuple[str, ...]


def state_dicts(loaded: object) -> dict[str, State]:
    """Returns the state dicts in a checkpoint by their name, of nested ones with dots.

    Args:
        loaded: The content of the file; the state dict that it is itself is named ``""``.
    """
    return dict(_state_dicts(loaded, "", _DEPTH))


def _state_dicts(value: object, name: str, depth: int) -> Iterator[tuple[str, State]]:
    import torch

    if not isinstance(value, Mapping):
        return
    tensors = {
        key: tensor
        for key, tensor in value.items()
        if isinstance(key, str) and isinstance(tensor, torch.Tensor)
    }
    if tensors:
        yield name, tensors
    for key, inner in value.items() if depth else ():
        if isinstance(key, str):
            yield from _state_dicts(inner, f"{name}.{key}" if name else key, depth - 1)


def unnamed(loaded: object) -> dict[str, list[torch.Tensor]]:
    """Returns the lists of tensors in a checkpoint by their name: what is averaged may be one.

    Args:
        loaded: The content of the file.
    """
    return dict(_unnamed(loaded, "", _DEPTH))


def _unnamed(value: object, name: str, depth: int) -> Iterator[tuple[str, list[torch.Tensor]]]:
    import torch

    tensors = value if isinstance(value, (list, tuple)) else ()
    if tensors and all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        yield name, list(tensors)
    for key, inner in value.items() if isinstance(value, Mapping) and depth >= 0 else ():
        yield from _unnamed(inner, f"{name}.{key}" if name else str(key), depth - 1)


def check_unnamed(
    what: str, lists: Mapping[str, list[torch.Tensor]], shapes: Collection[tuple[int, ...]]
) -> None:
    """Checks that a checkpoint does not hold the model's parameters once more, without names.

    Args:
        what: The model and its file, for messages.
        lists: From :func:`unnamed`.
        shapes: Those of the model's parameters.

    Raises:
        WeightsError: It does: which of them are meant is for the manifest to say.
    """
    wanted = Counter(shapes)
    for name, tensors in lists.items():
        fitting = wanted & Counter(tuple(tensor.shape) for tensor in tensors)
        if 2 * fitting.total() >= wanted.total():
            raise WeightsError(
                f"{what}: besides its state dict it holds a list of {len(tensors)} tensors of this "
                f"model's shapes, without names: {name}",
                hint="perhaps their average, which are different weights: save it as a state dict "
                "to use it; to use the state dict that is there, name it in the manifest, under "
                '[weights], such as state = "state_dict", or save it without the list',
            )


def unwrapped(state: State, expected: Collection[str]) -> tuple[State, tuple[str, ...]]:
    """Removes what PyTorch's wrappers of single blocks put into names: ``layer1._orig_mod.0.``.

    Args:
        state: A state dict, perhaps of names with a prefix.
        expected: timm's names.

    Returns:
        The state dict, and the wrappers that were removed from its names.
    """
    wanted = set(expected)
    if not any(_WRAPPERS.intersection(name.split(".")[1:]) for name in state):
        return state, ()
    renamed = {name: _without_wrappers(name, wanted) for name in state}
    if len(set(renamed.values())) < len(renamed):
        return state, ()  # it holds both, which only the manifest can tell apart
    removed = Counter[str]()
    for name, inner in renamed.items():
        removed += Counter(name.split(".")) - Counter(inner.split("."))
    return {renamed[name]: tensor for name, tensor in state.items()}, tuple(sorted(removed))


def _without_wrappers(name: str, wanted: Collection[str]) -> str:
    """Returns a name whose end, from some part on, is an expected one without its wrappers."""
    parts = name.split(".")
    for place, first in enumerate(parts):
        inner = ".".join(part for part in parts[place:] if part not in _WRAPPERS)
        if first not in _WRAPPERS and inner in wanted:
            return ".".join([*parts[:place], inner])
    return name


def choose_state(
    what: str, states: Mapping[str, State], expected: Collection[str], stated: str | None
) -> tuple[str, tuple[str, ...]]:
    """Returns the name of the state dict of a model, and what to say about it.

    Args:
        what: The model and its file, for messages.
        states: From :func:`state_dicts`.
        expected: timm's names.
        stated: The manifest's choice, if any.

    Raises:
        WeightsError: There is none, or no such one, or the manifest has to choose between several.
    """
    names = [name or "(top level)" for name in states]
    if stated is not None:
        if stated not in states:
            raise WeightsError(
                f"{what}: weights.state: it holds no state dict '{stated}'."
                f"{perhaps(stated, names)}",
                hint=f"it holds {', '.join(names) or 'none'}",
            )
        return stated, (f"state dict '{stated}', which the manifest states",)
    if not states:
        raise WeightsError(
            f"{what}: it holds no state dict",
            hint=f"it is looked for in dictionaries, at most {_DEPTH} within each other, and not "
            "in lists; save one in training: torch.save(model.state_dict(), 'weights.pth')",
        )
    fitting = [name for name, state in states.items() if fitting_prefixes(state, expected)]
    if len(fitting) > 1 and not _all_same([states[name] for name in fitting]):
        raise WeightsError(
            f"{what}: it holds several state dicts of this model: {', '.join(fitting)}",
            hint="they are different weights; choose one in the manifest, under [weights]: "
            + " or ".join(f'state = "{name}"' for name in fitting[:_SHOWN]),
        )
    scores = {name: _best(state, expected) for name, state in states.items()}
    chosen = fitting[0] if fitting else max(states, key=lambda name: scores[name])
    notes = [f"state dict '{chosen}'"] if chosen else []
    if len(fitting) > 1:
        notes = [f"state dict '{chosen}'; {', '.join(fitting[1:])} holds the same tensors"]
    return chosen, tuple(notes)


def _all_same(states: list[State]) -> bool:
    import torch

    first, *others = states
    return all(
        first.keys() == other.keys()
        and all(torch.equal(first[name], other[name]) for name in first)
        for other in others
    )


def find(
    what: str, state: State, expected: Collection[str], stated: str | None, ignored: tuple[str, ...]
) -> Found:
    """Returns a model's tensors in a state dict, by timm's names.

    Args:
        what: The model and its file, for messages.
        state: The state dict.
        expected: timm's names.
        stated: The prefix that the manifest states, if any.
        ignored: Prefixes, in the file, of tensors that the manifest ignores.

    Raises:
        WeightsError: The manifest has to choose between several prefixes, or states a wrong one.
    """
    # Of all names: were ignored ones left out here, they would choose between two variants of the
    # weights, and keys do not contain them.
    prefix = _choose_prefix(what, state, expected, stated)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(ignored)}
    tensors = {
        name.removeprefix(prefix): tensor
        for name, tensor in kept.items()
        if name.startswith(prefix)
    }
    notes = []
    if prefix:
        notes.append(f"names begin with '{prefix}', which was removed")
        if outside := [name for name in kept if not name.startswith(prefix)]:
            notes.append(f"left out, without that prefix: {shown(outside)}")
    others = tuple(other for other in _all_fitting(state, expected) if other != prefix)
    return Found(tensors=tensors, prefix=prefix, others=others, notes=tuple(notes))


def _choose_prefix(what: str, state: State, expected: Collection[str], stated: str | None) -> str:
    fitting = fitting_prefixes(state, expected)
    if stated is not None:
        if not any(name.startswith(stated) for name in state):
            raise WeightsError(
                f"{what}: weights.prefix: no name begins with '{stated}'",
                hint=f"prefixes that fit: {', '.join(map(repr, fitting)) or 'none'}; "
                f"the names are {shown(state)}",
            )
        return stated
    if len(fitting) > 1:
        raise WeightsError(
            f"{what}: it holds this model several times, under the prefixes {', '.join(fitting)}",
            hint="they are different weights; choose one in the manifest, under [weights]: "
            + " or ".join(f'prefix = "{prefix}"' for prefix in fitting[:_SHOWN]),
        )
    return fitting[0] if fitting else ""


def fitting_prefixes(names: Collection[str], expected: Collection[str]) -> list[str]:
    """Returns the prefixes under which a state dict holds at least half of a model's tensors.

    No prefix, ``""``, comes before all others: what else there is then has no place in the model.
    """
    fitting = _all_fitting(names, expected)
    return [""] if "" in fitting else fitting


def _all_fitting(names: Collection[str], expected: Collection[str]) -> list[str]:
    counts = _prefixes(names, expected)
    return sorted(prefix for prefix, count in counts.items() if 2 * count >= len(expected))


def _best(names: Collection[str], expected: Collection[str]) -> int:
    return max(_prefixes(names, expected).values(), default=0)


def _prefixes(names: Collection[str], expected: Collection[str]) -> Counter[str]:
    """Counts, for each prefix, the expected names that follow it."""
    wanted, counts = set(expected), Counter[str]()
    for name in names:
        parts = name.split(".")
        for place in range(len(parts)):
            if ".".join(parts[place:]) in wanted:
                counts["".join(f"{part}." for part in parts[:place])] += 1
    return counts


def shown(names: Collection[str]) -> str:
    """Returns names as a list in words, of which the first few are shown."""
    listed = sorted(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
