"""The interface of an object store."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from zoo.util.errors import RepositoryError, TooLongError

_KEY = re.compile(r"[A-Za-z0-9_][\w.+-]*(/[A-Za-z0-9_][\w.+-]*)*", re.ASCII)

PROBES = "probes/"
"""Prefix of the objects that :func:`probe` writes; remaining ones are abandoned."""

ELSEWHERE = (
    "publish to a server that keeps them (docs/reference/stores.md lists those that were tried) "
    "and copy from there with zoo mirror; reading from here is fine"
)
"""What to do about a server that publishing can't rely on."""

_RACERS = 4
_LATEST = 60.0  # seconds until all of them are ready

WITNESS = "repository.json"
"""A key that every repository has. Without list permission S3 returns 403 for missing keys. If this
key is readable, treat 403 on any other key as 'not found'."""


def check_key(key: str) -> str:
    """Returns ``key`` if it is valid.

    Raises:
        RepositoryError: The key is absolute, contains ``..`` or invalid characters.
    """
    if not is_key(key):
        raise RepositoryError(f"'{key}' is not a key of a repository")
    return key


def is_key(name: str) -> bool:
    """Returns whether a name is a valid key."""
    return _KEY.fullmatch(name) is not None


def check_prefix(prefix: str) -> str:
    """Returns ``prefix`` if it is valid: empty, a key, or a key with a trailing slash.

    Raises:
        RepositoryError: As for :func:`check_key`.
    """
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


Progress = Callable[[int], None]
"""Called with the number of bytes transferred since the last call."""


Take = Callable[[bytes], None]
"""Called with the next bytes of an object."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An object in a listing.

    Attributes:
        key: Key of the object.
        size: Size in bytes.
        modified: Time of the last write by the store's clock, UTC.
    """

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True, kw_only=True)
class Abandoned:
    """An incomplete write of a killed process. Nothing reads it, but it uses space.

    Attributes:
        name: Key of the intended object, or name of the temporary file.
        since: Time of its start or last write by the store's clock, UTC.
        upload: The server's id of a multipart upload; empty otherwise.
    """

    name: str
    since: datetime
    upload: str = ""


def too_long(url: str, key: str, limit: int) -> TooLongError:
    """Returns the error to raise for an object that exceeds its maximum length."""
    return TooLongError(
        f"{url}: {key} is longer than the {limit:,} bytes allowed; it was not read",
        hint="it was not used; report it to the repository's maintainers",
    )


class ObjectStore(Protocol):
    """Objects by key. Writes are atomic: readers see a complete object or none.

    Missing keys raise :class:`KeyError`; a store that can't be read or written raises
    :class:`~zoo.util.errors.RepositoryError`.
    """

    @property
    def url(self) -> str:
        """URL of the store, as accepted by :func:`zoo.stores.open_store`."""
        ...

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """Returns an object's content.

        Raises:
            TooLongError: The object has more than ``limit`` bytes; it is not read to the end.
        """
        ...

    def size(self, key: str) -> int | None:
        """Returns an object's size in bytes, or None if it does not exist."""
        ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Writes an object.

        Args:
            key: Key of the object.
            data: Content of the object.
            if_absent: Keep an existing object instead of overwriting it.

        Returns:
            Whether this call wrote the object.
        """
        ...

    def put_file(self, key: str, path: Path, *, progress: Progress | None = None) -> bool:
        """Writes a file as an object unless the object exists.

        The store may move the file instead of copying it.

        Returns:
            Whether this call wrote the object. If several writers race with large files, some
            servers return True to more than one; the object is one of the files, complete. Use
            :meth:`put` if it matters who won.
        """
        ...

    def delete(self, key: str) -> None:
        """Deletes an object if it exists."""
        ...

    def fetch(
        self, key: str, path: Path, *, size: int | None = None, progress: Progress | None = None
    ) -> None:
        """Downloads an object to a file, resuming an interrupted download.

        An existing file is assumed to be a prefix of the object and is appended to; a file longer
        than the object is left unchanged. The file is a prefix of the object at any time. If the
        object does not exist, no file is created.

        Args:
            key: Key of the object.
            path: File to write.
            size: Maximum size of the object in bytes.
            progress: Called as bytes arrive.

        Raises:
            TooLongError: The object is longer than ``size``.
        """
        ...

    def read_range(self, key: str, first: int, length: int) -> bytes:
        """Returns a range of an object, within its length.

        Raises:
            NoRangesError: The server sends whole objects only.
        """
        ...

    def stream_range(self, key: str, first: int, length: int, take: Take) -> None:
        """Passes a range of an object on, as :meth:`read_range` returns it.

        Args:
            key: Key of the object.
            first: First byte of the range.
            length: Length of the range.
            take: Called with its bytes, as they arrive where the server can be read like that.

        Raises:
            NoRangesError: The server sends whole objects only.
        """
        ...

    def local_path(self, key: str) -> Path | None:
        """Returns the path of an object in a local store, or None if the store is remote."""
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Holds an exclusive lock among all writers of the store.

        While waiting, the user is told who holds the lock. The lock of a killed process is
        released: immediately in a local directory, after a timeout on a server.

        Raises:
            RepositoryError: Another writer does not release the lock in time; or the lock was
                lost, which writes under the lock and its release detect.
        """
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects whose keys start with ``prefix``, sorted by key.

        A server may sort folder by folder (``a/b`` before ``a-b``). Uses constant memory if the
        server pages its listings.
        """
        ...

    def check_writable(self) -> None:
        """Checks with a test object that publishing to this store is possible and safe.

        Raises:
            RepositoryError: The store is not writable, or overwrites objects despite ``if_absent``,
                which publishing relies on.
        """
        ...

    def abandoned(self, before: datetime) -> Iterator[Abandoned]:
        """Yields incomplete writes that were last touched before a time, UTC.

        Choose ``before`` so that no running writer can have started earlier.
        """
        ...

    def discard(self, left: Abandoned) -> None:
        """Deletes an incomplete write if it still exists."""
        ...


def probe(store: ObjectStore) -> None:
    """Checks that a store is writable and respects ``if_absent``.

    Raises:
        RepositoryError: It is not, or does not.
    """
    key = f"{PROBES}{uuid.uuid4().hex}"
    first = store.put(key, b"first", if_absent=True)
    try:
        second = store.put(key, b"second", if_absent=True)
        if not first or second or store.get(key) != b"first":
            raise ignores_conditions(store.url, "If-None-Match: *")
    finally:
        delete_probe(store, key)


def race(store: ObjectStore) -> None:
    """Checks that of several writers who race for an object, one wins.

    Raises:
        RepositoryError: Several did, so the server checks the condition before it writes.
    """
    key = f"{PROBES}{uuid.uuid4().hex}"
    start = threading.Barrier(_RACERS)

    def write(number: int) -> bool:
        start.wait(_LATEST)
        return store.put(key, f"{number}".encode(), if_absent=True)

    try:
        with ThreadPoolExecutor(_RACERS, "race") as pool:
            winners = [number for number, won in enumerate(pool.map(write, range(_RACERS))) if won]
        if len(winners) != 1 or store.get(key) != f"{winners[0]}".encode():
            raise ignores_conditions(store.url, "If-None-Match: * of writers that race")
    finally:
        delete_probe(store, key)


def delete_probe(store: ObjectStore, key: str) -> None:
    """Deletes a probe; builders may not, and garbage collection finds it."""
    with suppress(RepositoryError):
        store.delete(key)


def ignores_conditions(url: str, what: str) -> RepositoryError:
    """Returns the error to raise for a server that ignores conditional writes."""
    return RepositoryError(
        f"{url}: this server ignores conditional writes ({what}): of two builders that race, one "
        "would overwrite the other's record, and two publishers could sign at once",
        hint=ELSEWHERE,
    )
