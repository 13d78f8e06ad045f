"""Deprecated alias of :mod:`zoo.util.errors`, kept for one release."""

from __future__ import annotations

import warnings
from typing import Any

from zoo.util import errors as _errors


def __getattr__(name: str) -> Any:
    """Returns an error class from its new module, with a deprecation warning."""
    moved = getattr(_errors, name, None)
    if not (isinstance(moved, type) and issubclass(moved, Exception)):
        raise AttributeError(f"module 'zoo.errors' has no attribute '{name}'")
    warnings.warn(
        f"zoo.errors.{name} moved: use zoo.ZooError, or zoo.util.errors.{name}",
        DeprecationWarning,
        stacklevel=2,
    )
    return moved
