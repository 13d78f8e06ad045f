"""``zoo cache``: lists, removes, prunes and verifies cached engines."""

from __future__ import annotations

import argparse
import math
import shutil
import time
from typing import Any

from zoo.cli.command import Parser, add_arguments
from zoo.client.client import default_cache
from zoo.client.engine_cache import damaged, engines_of, forget_lists, kept, names, prune
from zoo.util.errors import RepositoryError, UsageError
from zoo.util.names import counted, perhaps_matching


def ls(options: argparse.Namespace) -> int:
    """Lists the engines in this machine's cache."""
    files, titles = kept(default_cache()), names(default_cache())
    for file in files:
        day = time.strftime("%Y-%m-%d", time.localtime(file.used))
        title = titles.get(file.path.name, "") if file.whole else "(partial download)"
        print(f"{file.size / 2**20:>9.1f} MiB  used {day}  {f'{file.path.name} {title}'.rstrip()}")
    total = sum(file.size for file in files) / 2**20
    print(f"{default_cache()}: {counted(len(files), 'file')}, {total:.1f} MiB")
    return 0


def prune_command(options: argparse.Namespace) -> int:
    """Removes engines that have not been used for some time."""
    unused = prune(kept(default_cache()), now=time.time(), days=options.days)
    for file in unused:
        file.path.unlink(missing_ok=True)
    forget_lists(default_cache())
    size = sum(file.size for file in unused) / 2**20
    print(f"{counted(len(unused), 'file')} removed, {size:.1f} MiB")
    return 0


def remove(options: argparse.Namespace) -> int:
    """Removes the cached engines of a model, with their licences."""
    cache = default_cache()
    engines = engines_of(cache, options.model, options.target)
    files = [file for file in kept(cache) if file.path.name.partition(".")[0] in engines]
    if not files:
        have = sorted(names(cache).values())
        for_target = f" for {options.target}" if options.target else ""
        models = {name.partition(" ")[0] for name in have}
        near = "" if options.model in models else perhaps_matching(options.model, sorted(models))
        raise UsageError(
            f"{cache} has no engine of '{options.model}'{for_target}.{near}",
            hint=f"cached: {', '.join(have) or 'nothing'}",
        )
    for file in files:
        file.path.unlink(missing_ok=True)
    forget_lists(cache)
    for digest, record in engines.items():
        record.unlink(missing_ok=True)
        shutil.rmtree(cache / "documents" / f"{options.model}-{digest}", ignore_errors=True)
    size = sum(file.size for file in files) / 2**20
    print(f"{counted(len(files), 'file')} removed, {size:.1f} MiB")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Checks the digests of all cached engines and removes damaged ones."""
    bad = damaged(default_cache())
    for file in bad:
        file.path.unlink(missing_ok=True)
    if bad:
        digests = ", ".join(file.path.name[:12] for file in bad)
        raise RepositoryError(
            f"{default_cache()}: removed damaged engines: {digests}",
            hint="download them again with zoo pull",
        )
    count = sum(file.whole for file in kept(default_cache()))
    print(f"{default_cache()}: {counted(count, 'engine')} verified: no damage")
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
    """Adds ``zoo cache`` and its subcommands."""
    text = "Lists, removes, prunes and verifies the engines in this machine's cache."
    parser = commands.add_parser("cache", help=text, description=text)
    own = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    add_arguments(own, "ls", ls)
    pruning = add_arguments(own, "prune", prune_command)
    pruning.add_argument(
        "--days",
        type=_days,
        default=30.0,
        help="remove engines unused for this many days; 0 removes all (default: 30)",
    )
    removing = add_arguments(own, "rm", remove)
    removing.add_argument("model", help="model id, as listed by zoo cache ls")
    removing.add_argument("--target", help="label of the target (default: all targets)")
    add_arguments(own, "verify", verify)
