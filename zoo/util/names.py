"""Words in messages: suggestions for misspelt names, counted nouns, names of files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from zoo.util.errors import UsageError

_MOST = 3  # names that are suggested


def perhaps(name: str, known: Iterable[str]) -> str:
    """Returns `` Perhaps you meant 'x'?`` with the closest of ``known``, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Perhaps you meant '{near[0]}'?" if near else ""


def perhaps_matching(pattern: str, known: Sequence[str]) -> str:
    """Returns `` Perhaps you meant 'x' or 'y'?`` with names that a pattern may have been meant for.

    Args:
        pattern: A name, or a pattern such as ``vit_*``, that matches none of ``known``.
        known: The names.
    """
    parts = re.split(r"\[[^]]*\]|[*?]", pattern.lower())
    near: list[str] = []
    for text in filter(None, dict.fromkeys(["".join(parts), parts[0]])):
        starts = {name[: len(text)] for name in known}
        alike = difflib.get_close_matches(text, sorted(starts), n=_MOST, cutoff=0.6)
        near += [name for name in known if text in name]
        near += difflib.get_close_matches(text, known, n=_MOST, cutoff=0.6)
        near += [name for start in alike for name in known if name.startswith(start)]
    names = [f"'{name}'" for name in list(dict.fromkeys(near))[:_MOST]]
    return f" Perhaps you meant {enumerated(names, 'or')}?" if names else ""


def no_model(pattern: str, names: Sequence[str], families: Iterable[str]) -> UsageError:
    """Returns the error of a pattern that is neither a family nor matches a model."""
    families = sorted(families)
    matches = "matches " if set(pattern) & set("*?[") else ""
    return UsageError(
        f"no model {matches}'{pattern}'.{perhaps_matching(pattern, [*names, *families])}",
        hint=f"models: {listed(names)}\n  families: {listed(families)}",
    )


def listed(names: Sequence[str], most: int = 20) -> str:
    """Returns names as text, the number of the last ones if there are many: ``a, b and 3 more``."""
    rest = len(names) - most
    return ", ".join(names) if rest < 2 else f"{', '.join(names[:most])} and {rest:,} more"


def escaped(text: str) -> str:
    """Returns a text with what UTF-8 can't hold, such as bytes of a file's name, as in Python."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, which takes an s in the plural: ``1 model``, ``2 models``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def enumerated(names: Sequence[str], word: str) -> str:
    """Returns names as text, the last after a word: ``fp32, bf16 or int8``."""
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
