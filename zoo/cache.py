"""The cache of engines on this machine: what is in it, what may go, whether it is whole."""

from __future__ import annotations

import argparse
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zoo.cli_support import Parser, add_arguments
from zoo.client import default_cache
from zoo.digest import sha256_file
from zoo.errors import RepositoryError
from zoo.record import BuildRecord

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


def ls(options: argparse.Namespace) -> int:
    """Lists the engines on this machine."""
    files, known = kept(default_cache()), names(default_cache())
    for one in files:
        day = time.strftime("%Y-%m-%d", time.localtime(one.used))
        what = f"{one.path.name} {known.get(one.path.name, '') if one.whole else '(of a download)'}"
        print(f"{one.size / 2**20:>9.1f} MiB  used {day}  {what.rstrip()}")
    total = sum(one.size for one in files) / 2**20
    print(f"{default_cache()}: {len(files)} files, {total:.1f} MiB")
    return 0


def prune_command(options: argparse.Namespace) -> int:
    """Removes engines that have not been used for a while."""
    going = prune(kept(default_cache()), now=time.time(), days=options.days)
    for one in going:
        one.path.unlink(missing_ok=True)
    size = sum(one.size for one in going) / 2**20
    print(f"{len(going)} files removed, {size:.1f} MiB")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Checks every engine against its digest, and removes what is damaged."""
    bad = damaged(default_cache())
    for one in bad:
        one.path.unlink(missing_ok=True)
    if bad:
        names = ", ".join(one.path.name[:12] for one in bad)
        raise RepositoryError(
            f"{default_cache()}: damaged and removed: {names}", hint="zoo pull fetches them again"
        )
    print(
        f"{default_cache()}: {sum(one.whole for one in kept(default_cache()))} engines, all whole"
    )
    return 0


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of days, 0 or more")
    return days


def add_commands(commands: Any) -> None:
    """Adds ``zoo cache`` and what belongs to it."""
    text = "What is kept on this machine: ls, prune, verify."
    parser = commands.add_parser("cache", help=text, description=text)
    own = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    add_arguments(own, "ls", ls)
    pruning = add_arguments(own, "prune", prune_command)
    pruning.add_argument(
        "--days", type=_days, default=30.0, help="unused for that long; 0 for all (default: 30)"
    )
    add_arguments(own, "verify", verify)
