"""A store in memory: the whole interface, for tests and examples."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from zoo.stores.base import (
    Abandoned,
    Entry,
    Progress,
    Take,
    check_key,
    check_prefix,
    probe,
    too_long,
)
from zoo.stores.transfer import appending


class MemoryStore:
    """An :class:`~zoo.stores.base.ObjectStore` that lives as long as the object."""

    url = "memory://"

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._writing = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """Returns an object's bytes."""
        data, _ = self._objects[check_key(key)]
        if limit is not None and len(data) > limit:
            raise too_long(self.url, key, limit)
        return data

    def size(self, key: str) -> int | None:
        """Returns an object's length, None when there is none."""
        found = self._objects.get(check_key(key))
        return None if found is None else len(found[0])

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Writes an object; says whether this call wrote it."""
        with self._writing:
            if if_absent and check_key(key) in self._objects:
                return False
            self._objects[check_key(key)] = data, datetime.now(timezone.utc)
            return True

    def put_file(self, key: str, path: Path, *, progress: Progress | None = None) -> bool:
        """Writes a file as an object, unless it is there."""
        data = path.read_bytes()
        written = self.put(key, data, if_absent=True)
        if written and progress is not None:
            progress(len(data))
        return written

    def delete(self, key: str) -> None:
        """Removes an object."""
        self._objects.pop(check_key(key), None)

    def fetch(
        self, key: str, path: Path, *, size: int | None = None, progress: Progress | None = None
    ) -> None:
        """Copies an object to a file."""
        data = self.get(key, limit=size)
        with appending(path) as file:
            rest = data[file.tell() :]
            file.write(rest)
        if progress is not None:
            progress(len(rest))

    def read_range(self, key: str, first: int, length: int) -> bytes:
        """Returns a range of an object."""
        return self.get(key)[first : first + length]

    def stream_range(self, key: str, first: int, length: int, take: Take) -> None:
        """Passes a range of an object on in one piece."""
        take(self.read_range(key, first, length))

    def local_path(self, key: str) -> Path | None:
        """Memory has no paths."""
        return None

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """One thread at a time."""
        with self._locks[check_key(name)]:
            yield

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects whose keys start with ``prefix``, in order of their keys."""
        check_prefix(prefix)
        found = [item for item in list(self._objects.items()) if item[0].startswith(prefix)]
        for key, (data, modified) in sorted(found):
            yield Entry(key=key, size=len(data), modified=modified)

    def check_writable(self) -> None:
        """Tries it."""
        probe(self)

    def abandoned(self, before: datetime) -> Iterator[Abandoned]:
        """Memory that is left behind is gone."""
        return iter(())

    def discard(self, left: Abandoned) -> None:
        """There is never anything to remove."""
