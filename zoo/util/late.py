"""Packages that are imported when they are used, although another package imports them before."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands in for a package, which its first use imports."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system asks
            raise AttributeError(name)
        _remove(self)
        return getattr(import_module(self.__name__), name)


@contextmanager
def imported_later(name: str) -> Iterator[None]:
    """Lets modules that are imported in this context import a package when they use it.

    For optional packages that a library imports in any case. A package that is missing, or was
    imported before, is imported as ever.

    Args:
        name: Name of the package.
    """
    if name in sys.modules or find_spec(name) is None:
        yield
        return
    later = sys.modules[name] = _Later(name)
    try:
        yield
    finally:
        _remove(later)


def _remove(later: _Later) -> None:
    """Makes the next import of a package import it."""
    if sys.modules.get(later.__name__) is later:
        del sys.modules[later.__name__]
