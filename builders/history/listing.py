"""Keys of a repository, listed once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from zoo.repository.repository import Repository


class Listing:
    """Keys of a repository by folder; each prefix is listed once, on first use."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, set[str]]] = {}

    def keys(self, prefix: str, folder: str) -> set[str]:
        """Returns the keys in a folder.

        Args:
            prefix: The prefix to list: the first part of the folder, with all models.
            folder: The folder.
        """
        with self._lock:
            return self._folders(prefix).get(folder, set())

    def has(self, key: str) -> bool:
        """Whether a key exists."""
        return key in self.keys(key[: key.index("/") + 1], _folder(key))

    def add(self, prefix: str, key: str) -> None:
        """Adds a key written after the listing."""
        with self._lock:
            self._folders(prefix).setdefault(_folder(key), set()).add(key)

    def all_keys(self, prefix: str) -> Iterator[str]:
        """Yields all keys with a prefix."""
        with self._lock:
            folders = list(self._folders(prefix).values())
        for keys in folders:
            yield from keys

    def _folders(self, prefix: str) -> dict[str, set[str]]:
        if prefix not in self._found:
            folders = self._found[prefix] = {}
            for entry in self._repository.store.list(prefix):
                folders.setdefault(_folder(entry.key), set()).add(entry.key)
        return self._found[prefix]


def _folder(key: str) -> str:
    return key[: key.rindex("/") + 1]
