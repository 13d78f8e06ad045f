"""``StrEnum``, which Python 3.10 does not have."""

from __future__ import annotations

import sys

__all__ = ["StrEnum"]

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from enum import Enum

    class StrEnum(str, Enum):
        """An enum whose members are strings, and print, format and serialise as such."""

        __str__ = str.__str__
        __format__ = str.__format__
