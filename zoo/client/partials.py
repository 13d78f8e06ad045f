"""Names of unfinished downloads: each process has its own, and takes over what dead ones left."""

from __future__ import annotations

import os
import platform
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOST = re.sub(r"[^A-Za-z0-9]+", "_", platform.node()) or "host"
_NAME = re.compile(r"\.(?P<host>[A-Za-z0-9_]+)-(?P<pid>\d+)-[0-9a-f]{8}\.part")
_QUIET = 60.0
"""Seconds without a write after which a download of an unknown process counts as left."""

_active: set[Path] = set()


@contextmanager
def own_partial(path: Path) -> Iterator[Path]:
    """Yields a name for a download that no other process writes, locks or not.

    Args:
        path: What the download is renamed to when it is whole and checked. A download of it that
            was interrupted gets the new name, so that it can be resumed.
    """
    name = f"{path.name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part"
    own = path.with_name(name)
    for left in sorted(path.parent.glob(f"{path.name}.*part"), key=_size, reverse=True):
        # In a shared folder, another user's download can be renamed, but not written to.
        if _is_left(left, path.name) and os.access(left, os.R_OK | os.W_OK):
            try:
                left.rename(own)
            except OSError:  # another process was faster, or it is another user's
                continue
            break
    _active.add(own)
    try:
        yield own
    finally:
        _active.discard(own)


def _is_left(partial: Path, name: str) -> bool:
    """Whether a file is a download that no process writes any more.

    Whatever else may stand there, above all a link, would be written through.
    """
    try:
        found = partial.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        return False
    match = _NAME.fullmatch(partial.name.removeprefix(name))
    if match is None or match["host"] != _HOST:
        return time.time() - found.st_mtime > _QUIET
    if int(match["pid"]) == os.getpid():
        return partial not in _active
    try:
        os.kill(int(match["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
