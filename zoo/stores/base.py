"""The interface of an object store."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from zoo.util.errors import RepositoryError, TooLongError

_KEY = re.compile(r"[A-Za-z0-9_][\w.+-]*(/[A-Za-z0-9_][\w.+-]*)*", re.ASCII)

PROBES = "probes/"
"""Where :func:`probe` writes; what a kill leaves there is abandoned."""

WITNESS = "repository.json"
"""A key of every repository. Servers deny what is absent to whom may not list: where this one can
be read, another that is denied is one that is absent."""


def check_key(key: str) -> str:
    """Returns ``key`` when it stays inside the store.

    Raises:
        RepositoryError: It is absolute, climbs with ``..``, or holds characters that a key may not.
    """
    if not is_key(key):
        raise RepositoryError(f"'{key}' is not a key of a repository")
    return key


def is_key(name: str) -> bool:
    """Whether a name can be that of an object."""
    return _KEY.fullmatch(name) is not None


def check_prefix(prefix: str) -> str:
    """Returns ``prefix`` when what it lists stays inside the store: a key, or the start of one.

    Raises:
        RepositoryError: As for :func:`check_key`.
    """
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


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


@dataclass(frozen=True, kw_only=True)
class Abandoned:
    """What a writer that was killed left behind. Nothing reads it; it takes up space.

    Attributes:
        name: Of the object that it was to become, or of what lies there.
        since: When it was begun or last written, by the store's clock, UTC.
        upload: How a server calls an upload that was begun; empty for anything else.
    """

    name: str
    since: datetime
    upload: str = ""


def too_long(url: str, key: str, limit: int) -> TooLongError:
    """Returns the error of an object that is longer than it may be."""
    return TooLongError(
        f"{url}: {key} is longer than the {limit:,} bytes it may have; it was not read",
        hint="nothing of it was used; tell the repository's maintainers",
    )


class ObjectStore(Protocol):
    """Named bytes. A write is all or nothing: a reader sees the whole object or none.

    A key that is absent raises :class:`KeyError`; a store that can't be read or written raises
    :class:`~zoo.util.errors.RepositoryError`.
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
            Whether this call wrote it. Of large files that race for one key, some servers tell more
            than one so; the object is one of them, whole. Where it matters who won, the object is
            small and goes through :meth:`put`.
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
        one goes on from its end; one that is longer than the object is left as it is. At any moment
        the file is a true beginning of the object. When there is no object, there is no new file.

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
        """Holds a lock that one writer at a time can have: of all that write to this store.

        Somebody who waits is told for whom. A writer that is killed loses it: at once on a local
        directory, on a server when it has not been heard of for a while.

        Raises:
            RepositoryError: Somebody else holds it and does not let go; or, from a write inside or
                at the end, it was lost meanwhile.
        """
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects whose keys start with ``prefix``.

        They come in order of their keys; a server may sort folder by folder (``a/b`` before
        ``a-b``). Memory is constant where the server pages.
        """
        ...

    def check_writable(self) -> None:
        """Writes, writes again and removes a probe. Who publishes calls it once, before all else.

        Raises:
            RepositoryError: This store can't be written, or does not keep the promise that
                publishing leans on: that ``if_absent`` never overwrites.
        """
        ...

    def abandoned(self, before: datetime) -> Iterator[Abandoned]:
        """Yields what killed writers left that was not touched since ``before``, UTC.

        A writer at work may have begun before that: give it longer than any write takes.
        """
        ...

    def discard(self, left: Abandoned) -> None:
        """Removes something abandoned; what is gone already is no error."""
        ...


def probe(store: ObjectStore) -> None:
    """Finds out whether a store takes writes and keeps ``if_absent``.

    Raises:
        RepositoryError: It does not.
    """
    key = f"{PROBES}{uuid.uuid4().hex}"
    first = store.put(key, b"first", if_absent=True)
    try:
        second = store.put(key, b"second", if_absent=True)
        if not first or second or store.get(key) != b"first":
            raise ignores_conditions(store.url, "If-None-Match: *")
    finally:
        store.delete(key)


def ignores_conditions(url: str, what: str) -> RepositoryError:
    """Returns the error of a server that can't be published to."""
    return RepositoryError(
        f"{url}: this server ignores conditional writes ({what}): of two builders that race, one "
        "would overwrite the other's record, and two publishers could sign at once",
        hint="publish to one that keeps them (AWS S3, Cloudflare R2, MinIO, Ceph, SeaweedFS, in "
        "recent versions) and copy from there with zoo mirror; reading from here is fine",
    )
