"""Object stores: where the bytes of a repository lie.

:class:`~zoo.stores.base.ObjectStore` is the whole interface; :func:`open_store` picks one by URL.
"""

from __future__ import annotations

from pathlib import Path

from zoo.errors import RepositoryError
from zoo.stores.base import Entry, ObjectStore, Progress
from zoo.stores.local import LocalStore
from zoo.stores.memory import MemoryStore

__all__ = ["Entry", "LocalStore", "MemoryStore", "ObjectStore", "Progress", "open_store"]


def open_store(url: str) -> ObjectStore:
    """Opens the store that ``url`` names.

    Args:
        url: A directory, as a path or ``file://`` URL.

    Raises:
        RepositoryError: No store is known for the URL's scheme.
    """
    scheme, colon, rest = url.partition("://")
    if not colon:
        return LocalStore(Path(url))
    if scheme == "file":
        return LocalStore(Path(rest))
    raise RepositoryError(
        f"no store for '{scheme}://' URLs", hint="a repository is a directory, for now"
    )
