"""Numbers in sentences."""

from __future__ import annotations


def count(number: int, one: str, many: str | None = None) -> str:
    """Returns a number with its noun: ``1 model``, ``2,000 models``.

    Args:
        number: The number.
        one: The noun for one.
        many: The noun for any other number; ``one`` with an s by default.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
