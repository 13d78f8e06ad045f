"""A store in a local directory."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from zoo.errors import RepositoryError
from zoo.stores.base import Entry, Progress, check_key, too_long

_TEMPORARY = ".incoming"


class LocalStore:
    """An :class:`~zoo.stores.base.ObjectStore` in a directory, which is made at the first write.

    An object is written beside its place, synced, and then linked or renamed into it, so that a
    kill at any instant leaves the whole object or none. What a kill leaves behind lies in
    ``.incoming``, which nothing reads.

    Args:
        root: The directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()  # a worker reads it from another folder

    @property
    def url(self) -> str:
        """The directory."""
        return str(self.root)

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """Returns an object's bytes."""
        try:
            with self._path(key).open("rb") as file:
                data = file.read() if limit is None else file.read(limit + 1)
            if limit is not None and len(data) > limit:
                raise too_long(self.url, key, limit)
            return data
        except FileNotFoundError as error:
            raise KeyError(key) from error
        except OSError as error:
            raise self._failed("read", key, error) from error

    def size(self, key: str) -> int | None:
        """Returns an object's length, None when there is none."""
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed("read", key, error) from error

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Writes an object; says whether this call wrote it."""
        return self._write(key, lambda temporary: _write_bytes(temporary, data), if_absent)

    def put_file(self, key: str, path: Path, *, progress: Progress | None = None) -> bool:
        """Moves a file into the store (copies it across file systems), unless it is there."""
        if self.size(key) is not None:
            return False
        return self._write(key, lambda temporary: _move(path, temporary), if_absent=True)

    def delete(self, key: str) -> None:
        """Removes an object."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed("remove", key, error) from error

    def fetch(
        self, key: str, path: Path, *, size: int | None = None, progress: Progress | None = None
    ) -> None:
        """Copies an object to a file."""
        try:
            with self._path(key).open("rb") as source, path.open("ab") as target:
                if size is not None and os.fstat(source.fileno()).st_size > size:
                    raise too_long(self.url, key, size)
                source.seek(target.tell())
                while piece := source.read(1 << 20):
                    target.write(piece)
                    if progress is not None:
                        progress(len(piece))
        except FileNotFoundError as error:
            raise KeyError(key) from error
        except OSError as error:
            raise self._failed("read", key, error) from error

    def local_path(self, key: str) -> Path | None:
        """Returns where the object lies."""
        return self._path(key)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Holds ``.incoming/<name>.lock``; the system releases it when the process ends."""
        import fcntl

        path = self.root / _TEMPORARY / f"{check_key(name)}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise self._failed("lock", name, error) from error
        with file:
            yield

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects whose keys start with ``prefix``, in order of their keys."""
        start = self.root / prefix.rpartition("/")[0]
        found = []
        for folder, folders, names in os.walk(start):
            folders[:] = [name for name in folders if name != _TEMPORARY]
            relative = Path(folder).relative_to(self.root)
            found += [(relative / name).as_posix() for name in names]
        for key in sorted(key for key in found if key.startswith(prefix)):
            try:
                status = (self.root / key).stat()
            except FileNotFoundError:  # deleted meanwhile
                continue
            modified = datetime.fromtimestamp(status.st_mtime, timezone.utc)
            yield Entry(key=key, size=status.st_size, modified=modified)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _write(self, key: str, fill: Callable[[Path], None], if_absent: bool) -> bool:
        path = self._path(key)
        temporary = self.root / _TEMPORARY / uuid.uuid4().hex
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                fill(temporary)
                return _place(temporary, path, if_absent)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed("write", key, error) from error

    def _failed(self, verb: str, key: str, error: OSError) -> RepositoryError:
        hint = "check the free space and the permissions of that directory"
        if self.root.exists() and not self.root.is_dir():
            hint = f"{self.root} is a file; a repository is a directory"
        return RepositoryError(f"{self.root}: can't {verb} {key}: {error.strerror}", hint=hint)


def _place(temporary: Path, path: Path, if_absent: bool) -> bool:
    """Gives a finished file its name; says whether it got it."""
    if if_absent:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    else:
        os.replace(temporary, path)
    _sync(path.parent)
    return True


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _move(source: Path, path: Path) -> None:
    try:
        os.rename(source, path)
    except OSError:  # another file system
        shutil.copyfile(source, path)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
