"""The interface of an object store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from zoo.errors import RepositoryError

_KEY = re.compile(r"^[A-Za-z0-9_][\w.+-]*(/[A-Za-z0-9_][\w.+-]*)*$")


def check_key(key: str) -> str:
    """Returns ``key`` when it stays inside the store.

    Raises:
        RepositoryError: It is absolute, climbs with ``..``, or holds characters that a key may not.
    """
    if not _KEY.match(key):
        raise RepositoryError(f"'{key}' is not a key of a repository")
    return key


class ObjectStore(Protocol):
    """Named bytes. A write is all or nothing: a reader sees the whole object or none.

    A key that is absent raises :class:`KeyError`; a store that can't be read or written raises
    :class:`~zoo.errors.RepositoryError`.
    """

    @property
    def url(self) -> str:
        """Where this store lies, as :func:`zoo.stores.open_store` takes it."""
        ...

    def get(self, key: str) -> bytes:
        """Returns an object's bytes."""
        ...

    def size(self, key: str) -> int | None:
        """Returns an object's length in bytes, None when there is no such object."""
        ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Writes an object.

        Args:
            key: Its name.
            data: Its bytes.
            if_absent: Whether to leave an object that is there as it is.

        Returns:
            Whether this call wrote it.
        """
        ...

    def put_file(self, key: str, path: Path) -> bool:
        """Writes a file as an object, unless the object is there.

        The caller gives the file up: the store may move it instead of copying it.

        Returns:
            Whether this call wrote it.
        """
        ...

    def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error."""
        ...

    def fetch(self, key: str, path: Path) -> None:
        """Copies an object to a file."""
        ...

    def local_path(self, key: str) -> Path | None:
        """Returns where an object can be read in place, None where the store is remote."""
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Holds a lock that one writer at a time can have, on this machine."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yields the keys that start with ``prefix``, in order."""
        ...
