"""A store in a local directory."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from zoo.stores.base import (
    Abandoned,
    Entry,
    Progress,
    Take,
    check_key,
    check_prefix,
    is_key,
    probe,
    too_long,
)
from zoo.stores.local_folders import open_lock, opened_folder, remove
from zoo.stores.lock_owner import PATIENCE, Owner, Say, to_stderr, wait_for
from zoo.stores.transfer import appending
from zoo.util.errors import RepositoryError
from zoo.util.files import NO_LINKS, open_regular

_TEMPORARY = ".incoming"

_HINTS = {
    errno.ENOSPC: "the disk is full: free some space, or use another directory",
    errno.EDQUOT: "this user's quota is used up: free some space, or use another directory",
    errno.EFBIG: "files of this size are not allowed here: see ulimit -f and the file system",
    errno.EACCES: "this user has no permission: check the directory's owner and mode",
    errno.EPERM: "this user has no permission: check the directory's owner and mode",
    errno.EROFS: "the file system is mounted read-only",
    errno.ELOOP: "a repository has files and folders only, and nothing is written through links",
    errno.EINVAL: "a repository has files and folders only: find out who left something else there",
}


class LocalStore:
    """An :class:`~zoo.stores.base.ObjectStore` in a directory, created on the first write.

    Objects are written to temporary files in ``.incoming``, synced, and then linked or renamed, so
    that a process killed at any time leaves a complete object or none. Nothing reads ``.incoming``.
    Nothing is written, locked or deleted through a link in the directory, and only regular files
    are read: others may be able to write there.

    Args:
        root: The directory.
        say: Called with a message when waiting for a lock.
        patience: Seconds to wait for a lock.
    """

    def __init__(self, root: Path, *, say: Say = to_stderr, patience: float = PATIENCE) -> None:
        self.root = root.resolve()  # independent of symbolic links and the working directory
        self._say = say
        self._patience = patience

    @property
    def url(self) -> str:
        """The directory."""
        return str(self.root)

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """Returns an object's bytes."""
        with self._opened(key) as file:
            size = os.fstat(file.fileno()).st_size  # to read more would take a buffer of the limit
            data = _read(self.root, key, file.read, size if limit is None else min(size, limit + 1))
        if limit is not None and len(data) > limit:
            raise too_long(self.url, key, limit)
        return data

    def size(self, key: str) -> int | None:
        """Returns an object's length, None if it does not exist."""
        try:
            return self.local_path(key).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(self.root, "read", key, error) from error

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Writes an object; returns whether this call wrote it."""
        return self._write(key, lambda folder, name: _write_bytes(folder, name, data), if_absent)

    def put_file(self, key: str, path: Path, *, progress: Progress | None = None) -> bool:
        """Moves a file into the store (copies it across file systems) unless the object exists."""
        if self.size(key) is not None:
            return False
        size = path.stat().st_size
        written = self._write(key, lambda folder, name: _move(path, folder, name), if_absent=True)
        if written and progress is not None:
            progress(size)
        return written

    def delete(self, key: str) -> None:
        """Removes an object."""
        folder, _, name = check_key(key).rpartition("/")
        try:
            with opened_folder(self.root, folder) as opened:
                os.unlink(name, dir_fd=opened)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed(self.root, "remove", key, error) from error

    def fetch(
        self, key: str, path: Path, *, size: int | None = None, progress: Progress | None = None
    ) -> None:
        """Copies an object to a file."""
        with self._opened(key) as source, appending(path) as target:
            if size is not None and os.fstat(source.fileno()).st_size > size:
                raise too_long(self.url, key, size)
            source.seek(target.tell())
            while piece := _read(self.root, key, source.read, 1 << 20):
                target.write(piece)
                if progress is not None:
                    progress(len(piece))

    def read_range(self, key: str, first: int, length: int) -> bytes:
        """Returns a range of an object."""
        with self._opened(key) as file:
            file.seek(first)
            return _read(self.root, key, file.read, length)

    def stream_range(self, key: str, first: int, length: int, take: Take) -> None:
        """Passes a range of an object on in one piece."""
        take(self.read_range(key, first, length))

    def local_path(self, key: str) -> Path:
        """Returns the path of the object."""
        return self.root / check_key(key)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Holds ``.incoming/<name>.lock``; the system releases it when the process ends."""
        import fcntl

        try:
            _make_folder(self.root)
            with opened_folder(self.root, _TEMPORARY, make=True) as incoming:
                file = open_lock(incoming, f"{check_key(name)}.lock")
        except OSError as error:
            raise _failed(self.root, "lock", name, error) from error

        def attempt() -> str | None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                return str(Owner.parse(file.read()) or "another process")
            except OSError as error:
                raise _failed(self.root, "lock", name, error) from error
            return None

        with file:
            what = f"{self.url}: the lock '{name}'"
            wait_for(attempt, what, say=self._say, patience=self._patience)
            file.truncate(0)
            file.write(Owner.this_process().to_json())
            file.flush()
            yield

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects whose keys start with ``prefix``, in order of their keys."""
        start = self.root / check_prefix(prefix).rpartition("/")[0]
        keys: list[str] = []
        for folder, folders, names in os.walk(start):
            folders[:] = [name for name in folders if name != _TEMPORARY]
            relative = Path(folder).relative_to(self.root)
            keys += [(relative / name).as_posix() for name in names]
        for key in sorted(key for key in keys if key.startswith(prefix) and is_key(key)):
            try:
                status = (self.root / key).stat()
            except FileNotFoundError:  # deleted since the walk
                continue
            except OSError as error:
                if error.errno != errno.ELOOP:  # a link to itself
                    raise
                continue
            yield Entry(key=key, size=status.st_size, modified=_utc(status.st_mtime))

    def check_writable(self) -> None:
        """Writes, links and deletes probe objects."""
        probe(self)

    def abandoned(self, before: datetime) -> Iterator[Abandoned]:
        """Yields the files in ``.incoming``, except locks, last touched before a time."""
        folder = self.root / _TEMPORARY
        is_own = folder.is_dir() and not folder.is_symlink()
        for path in sorted(folder.iterdir()) if is_own else ():
            if path.suffix == ".lock":
                continue
            times = [_modified(inside) for inside in (path, *path.rglob("*"))]
            if (since := _utc(max(times))) < before:
                yield Abandoned(name=f"{_TEMPORARY}/{path.name}", since=since)

    def discard(self, left: Abandoned) -> None:
        """Removes a file or folder of ``.incoming``."""
        try:
            with opened_folder(self.root, _TEMPORARY) as incoming:
                remove(incoming, Path(left.name).name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed(self.root, "remove", left.name, error) from error

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        try:
            file = open_regular(f"{self.root}/{check_key(key)}")  # faster than a Path
        except FileNotFoundError as error:
            raise KeyError(key) from error
        except OSError as error:
            raise _failed(self.root, "read", key, error) from error
        with file:
            yield file

    def _write(self, key: str, fill: Callable[[int, str], None], if_absent: bool) -> bool:
        folder, _, name = check_key(key).rpartition("/")
        temporary = uuid.uuid4().hex
        try:
            _make_folder(self.root)
            with (
                opened_folder(self.root, _TEMPORARY, make=True) as incoming,
                opened_folder(self.root, folder, make=True) as target,
            ):
                try:
                    fill(incoming, temporary)
                    return _place(incoming, temporary, target, name, if_absent)
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=incoming)
        except OSError as error:
            raise _failed(self.root, "write", key, error) from error


def _read(root: Path, key: str, read: Callable[[int], bytes], size: int) -> bytes:
    try:
        return read(size)
    except OSError as error:
        raise _failed(root, "read", key, error) from error


def _failed(root: Path, verb: str, key: str, error: OSError) -> RepositoryError:
    hint = "check the free space and the permissions of that directory"
    if error.errno is not None:
        hint = _HINTS.get(error.errno, hint)
    if root.exists() and not root.is_dir():
        hint = f"{root} is a file; a repository is a directory"
    return RepositoryError(f"{root}: can't {verb} {key}: {error.strerror}", hint=hint)


def _place(incoming: int, temporary: str, folder: int, name: str, if_absent: bool) -> bool:
    """Gives a complete file its final name; returns whether the name was free."""
    # The time of its arrival here; a moved file brings an older one.
    os.utime(temporary, dir_fd=incoming, follow_symlinks=False)
    if if_absent:
        try:
            os.link(temporary, name, src_dir_fd=incoming, dst_dir_fd=folder)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in NO_LINKS:
                raise OSError(error.errno, "this file system has no hard links") from error
            raise
    else:
        os.replace(temporary, name, src_dir_fd=incoming, dst_dir_fd=folder)
    os.fsync(folder)
    return True


def _write_bytes(folder: int, name: str, data: bytes) -> None:
    with _new(folder, name) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _move(source: Path, folder: int, name: str) -> None:
    try:
        os.rename(source, name, dst_dir_fd=folder)
    except OSError:  # another file system
        with open_regular(source) as read, _new(folder, name) as file:
            shutil.copyfileobj(read, file, 1 << 20)
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new(folder: int, name: str) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(name, flags, 0o666, dir_fd=folder), "wb")


def _make_folder(path: Path) -> None:
    """Creates a folder and its parents, each synced, so that they survive a power failure."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:  # still in use: its writer has just finished with it
        return datetime.now(timezone.utc).timestamp()
