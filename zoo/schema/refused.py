"""Values of TOML that no field of a manifest takes: dates, and text with control characters."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

_PROSE = frozenset({"catalog", "deviations", "preprocess", "tolerance"})
"""The tables of a manifest whose text is for people, and may have lines."""

_CONTROLS = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0))))
_OF_LINES = frozenset("\n\t")
_LONGEST = 60  # characters of a value that a message repeats


def refused_values(data: object) -> list[str]:
    """Returns what is wrong with the values of a manifest, a line for each, whatever its fields.

    Models can't tell: a date would reach them as text, and the pages of the catalog show text as
    it is.

    Args:
        data: The parsed TOML.
    """
    lines = []
    for field, value in _values(data, ""):
        if isinstance(value, datetime.date | datetime.time):
            lines.append(
                f"{field}: {value} is a date or time, which no field takes; text has quotes"
            )
        elif isinstance(value, str) and (found := _control(field, value)) is not None:
            shown = repr(value[:_LONGEST]) + ("..." if len(value) > _LONGEST else "")
            lines.append(
                f"{field}: {shown}: the control character U+{ord(found):04X} is not allowed; "
                "remove it"
            )
    return lines


def _values(value: object, field: str) -> Iterator[tuple[str, object]]:
    """Yields every value that is neither a table nor a list, with its path."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _values(item, f"{field}.{name}" if field else name)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _values(item, f"{field}.{number}")
    else:
        yield field, value


def _control(field: str, text: str) -> str | None:
    """Returns the first control character of a text that may not be there."""
    allowed = _OF_LINES if field.partition(".")[0] in _PROSE else frozenset()
    return next((each for each in text if each in _CONTROLS and each not in allowed), None)
