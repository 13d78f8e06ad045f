"""Cached versions of installed packages; planning looks them up thousands of times."""

from __future__ import annotations

import importlib.metadata
from functools import cache


@cache
def version(package: str) -> str:
    """Returns the version of an installed package.

    Raises:
        PackageNotFoundError: The package is not installed.
    """
    return importlib.metadata.version(package)
