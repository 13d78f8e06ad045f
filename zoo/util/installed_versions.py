"""Versions of installed packages, each looked up once: a plan asks for them thousands of times."""

from __future__ import annotations

import importlib.metadata
from functools import cache


@cache
def version(package: str) -> str:
    """Returns the version of an installed package.

    Raises:
        PackageNotFoundError: It is not installed.
    """
    return importlib.metadata.version(package)
