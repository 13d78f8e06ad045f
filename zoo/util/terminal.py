"""Text for a terminal: control characters in what others wrote are shown, not obeyed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_SHOWN = {
    code: f"\\u{code:04x}"
    for code in (
        *(code for code in range(0x20) if code not in (0x09, 0x0A)),
        *range(0x7F, 0xA0),
        *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    )
}
"""C0 and C1 controls but tab and line feed, and what reverses the direction of text."""


def harmless(text: str) -> str:
    r"""Returns text whose control characters are written as in JSON: ``\u001b`` for an escape."""
    return text.translate(_SHOWN)


class _Harmless:
    """A stream whose text is made harmless; all else is the stream's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(harmless(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def harmless_output() -> Iterator[None]:
    """Makes all text on standard output harmless: names and reasons come from repositories."""
    before, ours = sys.stdout, _Harmless(sys.stdout)
    sys.stdout = ours
    try:
        yield
    finally:
        if sys.stdout is ours:  # not if a command has replaced it
            sys.stdout = before


def drawing_output() -> TextIO:
    """Returns standard output for what draws on a terminal, whose own controls are obeyed.

    Text that others wrote must be made harmless before it is drawn.
    """
    return sys.stdout._stream if isinstance(sys.stdout, _Harmless) else sys.stdout
