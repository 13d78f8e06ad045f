"""A store in memory: the whole interface, for tests and examples."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from zoo.stores.base import Entry, Progress, check_key, too_long


class MemoryStore:
    """An :class:`~zoo.stores.base.ObjectStore` that lives as long as the object."""

    url = "memory://"

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._modified: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """Returns an object's bytes."""
        data = self._objects[check_key(key)]
        if limit is not None and len(data) > limit:
            raise too_long(self.url, key, limit)
        return data

    def size(self, key: str) -> int | None:
        """Returns an object's length, None when there is none."""
        data = self._objects.get(check_key(key))
        return None if data is None else len(data)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Writes an object; says whether this call wrote it."""
        if if_absent and check_key(key) in self._objects:
            return False
        self._objects[check_key(key)] = data
        self._modified[key] = datetime.now(timezone.utc)
        return True

    def put_file(self, key: str, path: Path, *, progress: Progress | None = None) -> bool:
        """Writes a file as an object, unless it is there."""
        return self.put(key, path.read_bytes(), if_absent=True)

    def delete(self, key: str) -> None:
        """Removes an object."""
        self._objects.pop(check_key(key), None)

    def fetch(
        self, key: str, path: Path, *, size: int | None = None, progress: Progress | None = None
    ) -> None:
        """Copies an object to a file."""
        data = self.get(key, limit=size)
        with path.open("ab") as file:
            file.write(data[file.tell() :])
        if progress is not None:
            progress(len(data))

    def local_path(self, key: str) -> Path | None:
        """Memory has no paths."""
        return None

    def lock(self, name: str) -> threading.Lock:
        """One writer at a time; the name makes no difference."""
        return self._lock

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects whose keys start with ``prefix``, in order of their keys."""
        for key in sorted(key for key in self._objects if key.startswith(prefix)):
            size = len(self._objects[key])
            yield Entry(key=key, size=size, modified=self._modified[key])
