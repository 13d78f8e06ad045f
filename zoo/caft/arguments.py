"""Checks of the arguments of functions that users call, before anything is done."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Sequence
from contextlib import suppress
from numbers import Real
from typing import Any

from zoo.util.errors import UsageError
from zoo.util.names import enumerated

_SHOWN = 60  # characters of a value in a message


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Checks that an argument is one of a few words.

    Raises:
        UsageError: It is not.
    """
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{name}={value!r}: it is {enumerated(choices, 'or')}")


def whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Returns an argument that is a whole number, NumPy's integers included.

    Raises:
        UsageError: It is none, or not in its range.
    """
    ends = [] if least is None else [f"at least {least:,}"]
    ends += [] if most is None else [f"at most {most:,}"]
    try:
        number = operator.index(value)
        if (least is None or number >= least) and (most is None or number <= most):
            return number
    except TypeError:
        pass
    limits = f", {' and '.join(ends)}" if ends else ""
    raise UsageError(f"{name}={_short(value)}: it is a whole number{limits}")


def check_number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Checks that an argument is a finite number in a range.

    Raises:
        UsageError: It is not.
    """
    with suppress(OverflowError):  # of an integer of hundreds of digits
        if isinstance(value, Real) and least <= float(value) < below and float(value) > above:
            return
    ends = {"of at least": least, "above": above, "below": below}
    limits = " and ".join(f"{word} {end}" for word, end in ends.items() if math.isfinite(end))
    raise UsageError(f"{name}={_short(value)}: it is a number{limits and ' ' + limits}")


def check_kind(name: str, value: Any, kind: type, source: str) -> None:
    """Checks that an argument is of a class.

    Args:
        name: Name of the argument.
        value: Its value.
        kind: The class.
        source: What returns one, for the message.

    Raises:
        UsageError: It is not.
    """
    if not isinstance(value, kind):
        raise UsageError(f"{name}={value!r}: it is what {source} returns")


def check_callable(name: str, value: Any) -> None:
    """Checks that an argument can be called.

    Raises:
        UsageError: It can't.
    """
    if not callable(value):
        raise UsageError(f"{name}={_short(value)}: it is a function")


def check_path(name: str, value: Any) -> None:
    """Checks that an argument names a file or a folder.

    Raises:
        UsageError: It does not.
    """
    if not isinstance(value, (str, os.PathLike)) or "\0" in str(value) or not str(value):
        raise UsageError(f"{name}={_short(value)}: it is a path")


def _short(value: Any) -> str:
    """Returns a value as Python writes it, in part if that is long."""
    try:
        text = repr(value)
    except ValueError:  # of an integer of thousands of digits
        text = "an integer of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
