"""The cache of engines on this machine: what is in it, what may go, whether it is whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from zoo.schema.records import BuildRecord
from zoo.util.digest import sha256_file

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A file of the cache.

    Attributes:
        path: Where.
        size: Bytes.
        used: When it was last read or, where the file system does not tell, written; seconds
            since 1970.
        whole: Whether it has an engine's name; what has not is what a download left.
    """

    path: Path
    size: int
    used: float
    whole: bool


def kept(cache: Path) -> list[Kept]:
    """Returns the files of a cache's engines, in the order of their last use."""
    found = []
    folder = cache / "engines"
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            status = path.stat()
        except FileNotFoundError:  # another process has just finished or removed it
            continue
        if path.is_file():
            found.append(
                Kept(
                    path=path,
                    size=status.st_size,
                    used=max(status.st_atime, status.st_mtime),
                    whole=bool(_DIGEST.fullmatch(path.name)),
                )
            )
    return sorted(found, key=lambda one: one.used)


def names(cache: Path) -> dict[str, str]:
    """Returns what the engines of a cache are, model and target, by digest."""
    found = {}
    for path in (cache / "records").glob("*.json"):
        try:
            record = BuildRecord.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):  # of another version, or just removed
            continue
        found[record.engine.sha256] = f"{record.inputs.model} {record.targets[0]}"
    return found


def damaged(cache: Path) -> list[Kept]:
    """Returns the engines whose bytes are not what their names say."""
    return [one for one in kept(cache) if one.whole and sha256_file(one.path) != one.path.name]


def prune(files: list[Kept], *, now: float, days: float) -> list[Kept]:
    """Picks what may go: engines unused for that long, leftovers of downloads after a day."""
    return [one for one in files if now - one.used >= (days if one.whole else 1) * _DAY]
