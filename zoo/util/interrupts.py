"""Ctrl-C before and after a command line runs: the process ends, without a traceback."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from types import FrameType

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

_presses: list[int] = []
"""The signals of Ctrl-C that the command line has received."""


def _press(number: int, frame: FrameType | None) -> None:
    """Notes Ctrl-C, since not every library says what it turns ``KeyboardInterrupt`` into."""
    _presses.append(number)
    signal.default_int_handler(number, frame)


def run_main(module: str) -> int:
    """Imports a module and runs its ``main``.

    The import takes most of a second, and an interpreter that ends runs hooks of libraries. Ctrl-C
    would print where they were, so the signal itself ends the process then.

    Args:
        module: The module.

    Returns:
        The exit status.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return int(import_module(module).main())  # ignored, as for jobs in the background
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        main = import_module(module).main
        signal.signal(signal.SIGINT, _press)
        return int(main())
    except KeyboardInterrupt:  # while the command line was read, or again while it was told
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_interrupt(error: BaseException) -> bool:
    """Returns whether Ctrl-C is what an exception comes from.

    Libraries in C and those that report missing packages turn it into other errors while they are
    imported, and pydantic does while it writes JSON.
    """
    if _presses:
        return True
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
