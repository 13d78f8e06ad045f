"""Checks of the arguments of functions that users call, before anything is done."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

from zoo.util.errors import UsageError
from zoo.util.names import enumerated


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Checks that an argument is one of a few words.

    Raises:
        UsageError: It is not.
    """
    if value not in choices:
        raise UsageError(f"{name}={value!r}: it is {enumerated(choices, 'or')}")


def whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Returns an argument that is a whole number, NumPy's integers included.

    Raises:
        UsageError: It is none, or not in its range.
    """
    ends = [] if least is None else [f"at least {least}"]
    ends += [] if most is None else [f"at most {most:,}"]
    try:
        number = operator.index(value)
        if (least is None or number >= least) and (most is None or number <= most):
            return number
    except TypeError:
        pass
    limits = f", {' and '.join(ends)}" if ends else ""
    raise UsageError(f"{name}={value!r}: it is a whole number{limits}")


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
    if isinstance(value, Real) and least <= float(value) < below and float(value) > above:
        return
    ends = {"of at least": least, "above": above, "below": below}
    limits = " and ".join(f"{word} {end}" for word, end in ends.items() if math.isfinite(end))
    raise UsageError(f"{name}={value!r}: it is a number{limits and ' ' + limits}")


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
