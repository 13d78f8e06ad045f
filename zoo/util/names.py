"""Words in messages: suggestions for misspelt names, and counted nouns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def perhaps(name: str, known: Iterable[str]) -> str:
    """Returns `` Perhaps you meant 'x'?`` with the closest of ``known``, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Perhaps you meant '{near[0]}'?" if near else ""


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, which takes an s in the plural: ``1 model``, ``2 models``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def enumerated(names: Sequence[str], word: str) -> str:
    """Returns names as text, the last after a word: ``fp32, bf16 or int8``."""
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
