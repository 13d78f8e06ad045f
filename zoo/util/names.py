"""Near misses: what somebody who typed a name that does not exist probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def perhaps(name: str, known: Iterable[str]) -> str:
    """Returns `` Perhaps you meant 'x'?`` for the nearest of ``known``, else an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Perhaps you meant '{near[0]}'?" if near else ""
