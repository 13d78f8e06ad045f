"""The interface of an object store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from zoo.errors import RepositoryError, TooLongError

_KEY = re.compile(r"^[A-Za-z0-9_][\w.+-]*(/[A-Za-z0-9_][\w.+-]*)*$")


def check_key(key: str) -> str:
    """Returns ``key`` when it stays inside the store.

    Raises:
        RepositoryError: It is absolute, climbs with ``..``, or holds characters that a key may not.
    """
    if not _KEY.match(key):
        raise RepositoryError(f"'{key}' is not a key of a repository")
    return key


Progress = Callable[[int], None]
"""Takes the number of bytes that went over since the last call."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a listing says of an object.

    Attributes:
        key: Its name.
        size: Its length in bytes.
        modified: When it was written, by the store's clock, UTC.
    """

    key: str
    size: int
    modified: datetime


def too_long(url: str, key: str, limit: int) -> TooLongError:
    """Returns the error of an object that is longer than it may be."""
    return TooLongError(
        f"{url}: {key} is longer than the {limit:,} bytes it may have; it was not read",
        hint="nothing of it was used; tell the repository's maintainers",
    )


class ObjectStore(Protocol):
    """Named bytes. A write is all or nothing: a reader sees the whole object or none.

    A key that is absent raises :class:`KeyError`; a store that can't be read or written raises
    :class:`~zoo.errors.RepositoryError`.
    """

    @property
    def url(self) -> str:
        """Where this store lies, as :func:`zoo.stores.open_store` takes it."""
        ...

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """Returns an object's bytes.

        Raises:
            TooLongError: It has more than ``limit``; it is not read to its end.
        """
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

    def put_file(self, key: str, path: Path, *, progress: Progress | None = None) -> bool:
        """Writes a file as an object, unless the object is there.

        The caller gives the file up: the store may move it instead of copying it.

        Returns:
            Whether this call wrote it.
        """
        ...

    def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error."""
        ...

    def fetch(
        self, key: str, path: Path, *, size: int | None = None, progress: Progress | None = None
    ) -> None:
        """Copies an object to a file.

        A file that is there is the beginning of the object, from a fetch that was interrupted: this
        one goes on from its end. At any moment the file is a true beginning of the object.

        Args:
            key: The object's name.
            path: The file.
            size: How long the object may be, bytes.
            progress: Is told of bytes as they arrive.

        Raises:
            TooLongError: It is longer.
        """
        ...

    def local_path(self, key: str) -> Path | None:
        """Returns where an object can be read in place, None where the store is remote."""
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Holds a lock that one writer at a time can have, on this machine."""
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects whose keys start with ``prefix``, in order of their keys."""
        ...
