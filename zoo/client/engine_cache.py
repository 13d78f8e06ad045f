"""Local engine cache: lists, checks and prunes its files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from zoo.schema.records import BuildRecord
from zoo.util.digest import sha256_file
from zoo.util.loading import read_regular

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A file in the engine cache.

    Attributes:
        path: Path of the file.
        size: Size in bytes.
        used: Unix time of the last read, or of the last write if the file system records no reads.
        whole: Whether it is a complete engine rather than a partial download.
    """

    path: Path
    size: int
    used: float
    whole: bool


def kept(cache: Path) -> list[Kept]:
    """Returns the engine files and partial downloads in a cache, least recently used first."""
    files = []
    folder = cache / "engines"
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            status = path.stat()
        except FileNotFoundError:  # renamed or removed by another process meanwhile
            continue
        if path.is_file():
            files.append(
                Kept(
                    path=path,
                    size=status.st_size,
                    used=max(status.st_atime, status.st_mtime),
                    whole=bool(_DIGEST.fullmatch(path.name)),
                )
            )
    return sorted(files, key=lambda file: file.used)


def names(cache: Path) -> dict[str, str]:
    """Returns model and target of the cached engines by digest."""
    titles = {}
    for path in (cache / "records").glob("*.json"):
        record = _record(path)
        if record is None:
            continue
        titles[record.engine.sha256] = f"{record.inputs.model} {record.targets[0]}"
    return titles


def engines_of(cache: Path, model: str, target: str | None = None) -> dict[str, Path]:
    """Returns the records of a model's cached engines, by the engines' digests.

    Args:
        cache: The cache.
        model: The model's id.
        target: Label of the target; by default all targets.
    """
    found = {}
    for path in (cache / "records").glob("*.json"):
        record = _record(path)
        if record is None or record.inputs.model != model:
            continue
        if target is None or target in record.targets:
            found[record.engine.sha256] = path
    return found


def forget_lists(cache: Path) -> None:
    """Removes the lists of chunks of engines that are not in the cache any more."""
    for path in (cache / "chunks").glob("*"):
        if not (cache / "engines" / path.name).exists():
            path.unlink(missing_ok=True)


def _record(path: Path) -> BuildRecord | None:
    try:
        return BuildRecord.model_validate_json(read_regular(path))
    except (OSError, ValidationError):  # removed meanwhile, or written by another version
        return None


def damaged(cache: Path) -> list[Kept]:
    """Returns the cached engines whose digest does not match their name."""
    return [file for file in kept(cache) if file.whole and sha256_file(file.path) != file.path.name]


def prune(files: list[Kept], *, now: float, days: float) -> list[Kept]:
    """Returns engines unused for ``days`` and partial downloads unused for a day."""
    return [file for file in files if now - file.used >= (days if file.whole else 1) * _DAY]
