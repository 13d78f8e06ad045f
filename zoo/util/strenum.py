"""Backport of ``StrEnum`` for Python 3.10."""

from __future__ import annotations

import sys

__all__ = ["StrEnum"]

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from enum import Enum

    class StrEnum(str, Enum):
        """An enum whose members are strings and are formatted and serialised as such."""

        __str__ = str.__str__
        __format__ = str.__format__
