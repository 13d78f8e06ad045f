"""Trust on first use: shows the fingerprint of a repository's root and asks, as ssh does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

Ask = Callable[[str, str], bool]
"""Asks whether to trust a repository, given its URL and the SHA-256 of its first root."""


def asker(answers: TextIO | None = None, screen: TextIO | None = None) -> Ask | None:
    """Returns what asks on the terminal; None if nobody is there to answer.

    Args:
        answers: Where answers are typed; by default stdin.
        screen: Where questions are shown; by default stderr, so that stdout stays the result.
    """
    typed, shown = answers or sys.stdin, screen or sys.stderr
    if typed is None or shown is None or not (typed.isatty() and shown.isatty()):
        return None
    return lambda url, fingerprint: _ask(url, fingerprint, typed, shown)


def _ask(url: str, fingerprint: str, typed: TextIO, shown: TextIO) -> bool:
    """Asks until the answer is one; anything but yes or the same fingerprint is a no."""
    print(
        f"{url}: you have not used this repository before. The SHA-256 of its root is\n"
        f"  {fingerprint}\n"
        "Compare it with the one on its catalog's pages, or ask its maintainers.",
        file=shown,
    )
    question = "Trust it from now on (yes/no/SHA-256)? "
    while True:
        print(question, end="", file=shown, flush=True)
        line = typed.readline()
        answer = line.strip().lower().removeprefix("sha256:")
        if not line or answer in ("n", "no"):
            return False
        if answer in ("yes", fingerprint):
            return True
        if len(answer) == len(fingerprint):
            print("That is another SHA-256.", file=shown)
            return False
        question = "Type yes, no, or the SHA-256: "
