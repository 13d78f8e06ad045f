"""Folders of verified metadata and files: one of this process, and one that processes share.

A process reads into its own folder and adds what it verified to the shared one, which is locked for
that moment alone, not while a server is waited for.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from zoo.util.digest import sha256_bytes
from zoo.util.files import make_way, open_regular, write_whole
from zoo.util.loading import parse_json
from zoo.util.locks import turn

_PREFIX = "zoo-trust-"
_IN_USE = "in-use"
_SETTLED = 3600.0
"""Seconds after which the process of a folder has certainly locked it, if it lives."""


class TrustFolders:
    """The verified metadata and files of a repository.

    Args:
        shared: The folder that this user's processes share; it may be read-only.
    """

    def __init__(self, shared: Path) -> None:
        self._folder = shared
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._in_use: BinaryIO | None = None

    @property
    def metadata(self) -> Path:
        """Folder of the metadata that this process read; the shared one before it read any."""
        return next(self._own_folder(), self._folder) / "metadata"

    def copy_of(self, path: str) -> Path | None:
        """Returns the last verified copy of a file of the index, None if there is none."""
        for folder in (*self._own_folder(), self._folder):
            if (cached := _place(folder, path)).is_file():
                return cached
        return None

    def read_copy(self, path: str, digest: str) -> bytes | None:
        """Returns the verified copy of a file if it has this SHA-256, None otherwise."""
        cached = self._cached(path)
        if not (_digest_of(cached).is_file() and cached.is_file()):
            return None
        copy = cached.read_bytes()
        return copy if sha256_bytes(copy) == digest else None

    def keep_copy(self, path: str, data: bytes, digest: str) -> None:
        """Caches a verified file, and its digest, to check the copy with when it is used."""
        cached = self._cached(path)
        note = _digest_of(cached)
        make_way(cached)
        make_way(note)
        note.unlink(missing_ok=True)  # never the digest of an older copy, whatever happens now
        write_whole(cached, data)
        write_whole(note, digest.encode())

    def start(self) -> None:
        """Copies the shared metadata, which sets the versions that must not be undercut."""
        if self._own is None:
            _remove_left()
            self._own = tempfile.TemporaryDirectory(prefix=_PREFIX)
            self._in_use = open(Path(self._own.name) / _IN_USE, "wb")  # noqa: SIM115
            with suppress(OSError):  # a file system without locks
                fcntl.flock(self._in_use, fcntl.LOCK_EX)
        elif not self._is_writable:
            return  # what this process read is newer
        own, shared = Path(self._own.name) / "metadata", self._folder / "metadata"
        with turn(self._folder / "lock"):
            if own.is_dir():
                shutil.rmtree(own)
            if shared.is_dir():
                shutil.copytree(shared, own, symlinks=True, ignore=_folders_in_the_way)

    def share(self) -> None:
        """Adds the metadata that this process read to the shared folder, unless that is newer."""
        if not self._is_writable:
            return
        shared = self._folder / "metadata"
        with turn(self._folder / "lock"):
            for path in self.metadata.rglob("*.json"):
                other = shared / path.relative_to(self.metadata)
                data = path.read_bytes()
                if path.is_symlink() or (other.is_file() and not _is_newer(data, other)):
                    continue
                make_way(other)
                write_whole(other, data)

    @property
    def _is_writable(self) -> bool:
        return _may_write(self._folder)

    def _cached(self, path: str) -> Path:
        folder = self._folder if self._is_writable else next(self._own_folder())
        return _place(folder, path)

    def _own_folder(self) -> Iterator[Path]:
        if self._own is not None:
            yield Path(self._own.name)


def _remove_left() -> None:
    """Removes the folders of this user's processes that were killed: nobody holds their locks."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            if not is_own or time.time() - status.st_mtime < _SETTLED:
                continue
            with open_regular(folder / _IN_USE) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


def is_intact(cached: Path) -> bool:
    """Whether a verified copy is as it was; copies of earlier versions, without a digest, count."""
    note = _digest_of(cached)
    return not note.is_file() or note.read_bytes() == sha256_bytes(cached.read_bytes()).encode()


def _place(folder: Path, path: str) -> Path:
    return folder / "verified" / quote(path, safe="")


def _is_newer(data: bytes, known: Path) -> bool:
    """Whether metadata is of a later version than a known file, or that file is damaged."""
    before = known.read_bytes()
    if data == before:
        return False
    try:
        return bool(_version(data) >= _version(before))
    except (ValueError, KeyError, TypeError):
        return True


def _version(data: bytes) -> int:
    return int(parse_json(data)["signed"]["version"])


def _digest_of(cached: Path) -> Path:
    return cached.with_name(f"{cached.name}.sha256")


def _may_write(folder: Path) -> bool:
    """Whether this user may write to a folder, or create it."""
    for part in (folder, folder / "metadata", folder / "verified"):
        while not part.exists() and part != part.parent:
            part = part.parent
        if not os.access(part, os.W_OK | os.X_OK):
            return False
    return True


def _folders_in_the_way(folder: str, names: list[str]) -> list[str]:
    """Returns what is a folder and has the name of a metadata file."""
    return [name for name in names if name.endswith(".json") and (Path(folder) / name).is_dir()]
