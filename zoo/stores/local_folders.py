"""Opens the folders of a local store by descriptor, never through a link.

Whoever can write to a store's directory can leave a link there. A writer that followed it would
overwrite and delete files of its own user, anywhere: also the keys that sign the store.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def opened_folder(root: Path, folder: str, *, make: bool = False) -> Iterator[int]:
    """Yields a descriptor of a folder in a store.

    Args:
        root: The store's directory.
        folder: The folder, relative to it; empty for the directory itself.
        make: Whether to create what is missing, synced to disk.

    Raises:
        OSError: It is missing, or something on the way is not a folder but a link, say.
    """
    descriptor = os.open(root, _FOLDER)
    try:
        for name in filter(None, folder.split("/")):
            below = _below(name, descriptor, make)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _below(name: str, above: int, make: bool) -> int:
    while True:
        try:
            return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
        except FileNotFoundError:
            if not make:
                raise
            _make(name, above)
        except OSError as error:
            if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
                raise OSError(errno.ELOOP, f"{name} is a link", name) from error
            raise


def _make(name: str, above: int) -> None:
    try:
        os.mkdir(name, dir_fd=above)
    except FileExistsError:  # another writer made it
        return
    os.fsync(above)  # so that it survives a power failure


def open_lock(folder: int, name: str) -> BinaryIO:
    """Opens a file to lock, and creates it if it is missing.

    Raises:
        OSError: It is a link, or something else than a regular file of its own.
    """
    descriptor = os.open(name, _LOCK, 0o666, dir_fd=folder)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{name} is not a regular file of its own", name)
    return os.fdopen(descriptor, "a+b")


def remove(folder: int, name: str) -> None:
    """Removes a file, or a folder with all that it holds, unless it is gone already."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            return
        with os.scandir(opened := os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)) as inside:
            names = [entry.name for entry in inside]
        try:
            for inner in names:
                remove(opened, inner)
        finally:
            os.close(opened)
        os.rmdir(name, dir_fd=folder)
    except FileNotFoundError:
        return
