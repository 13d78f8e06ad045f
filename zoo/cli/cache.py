"""``zoo cache``: what is stored on this machine, and its removal."""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

from zoo.cli.support import Parser, add_arguments
from zoo.client.client import default_cache
from zoo.client.engine_cache import damaged, kept, names, prune
from zoo.util.errors import RepositoryError


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
