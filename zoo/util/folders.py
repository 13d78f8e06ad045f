"""Folders of the user, as the XDG base directory specification names them."""

from __future__ import annotations

import os
from pathlib import Path

from zoo.util.errors import UsageError


def cache_folder() -> Path:
    """Returns ``$XDG_CACHE_HOME``, else ``~/.cache``.

    Raises:
        UsageError: The user has no home.
    """
    return _folder("XDG_CACHE_HOME", ".cache")


def config_folder() -> Path:
    """Returns ``$XDG_CONFIG_HOME``, else ``~/.config``.

    Raises:
        UsageError: The user has no home.
    """
    return _folder("XDG_CONFIG_HOME", ".config")


def _folder(variable: str, otherwise: str) -> Path:
    if stated := os.environ.get(variable):
        return Path(stated)
    try:
        return Path.home() / otherwise
    except RuntimeError as error:  # such as a container's user without a name
        raise UsageError(
            "this user has no home folder for the cache and for trusted roots",
            hint="set ZOO_HOME to a folder that you may write to",
        ) from error
