"""Parser and options shared by the commands of both packages."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from zoo.client.client import Client, connect, default_store
from zoo.client.first_use import asker
from zoo.schema.targets import PRECISIONS
from zoo.util.errors import UsageError
from zoo.util.terminal import harmless


def add_store(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the repository to read."""
    parser.add_argument(
        "--store",
        default=default_store(),
        help="URL or folder of the repository (default: $ZOO_STORE, else ./_repository)",
    )
    parser.add_argument(
        "--trust",
        metavar="ROOT",
        help="trust the repository from now on; ROOT is its root.json or the SHA-256 of its first "
        "root (default: show the SHA-256 and ask, if on a terminal)",
    )
    parser.add_argument(
        "--anonymous", action="store_true", help="read an s3:// repository without credentials"
    )
    parser.add_argument(
        "--allow-stale", action="store_true", help="accept an index that has expired"
    )


def client_of(options: argparse.Namespace) -> Client:
    """Opens the repository given by the options."""
    return connect(
        options.store,
        trust=options.trust,
        anonymous=options.anonymous,
        allow_stale=options.allow_stale,
        say=lambda text: print(harmless(text), file=sys.stderr),
        ask=asker(),
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Adds the options that select an engine of a model."""
    parser.add_argument(
        "--target",
        help="label of the target, such as sm86-rtx1.7-fp16 (default: the best for this machine)",
    )
    parser.add_argument(
        "--precision",
        choices=tuple(map(str, PRECISIONS)),
        help="precision of the engine (default: the fastest that is close to fp32)",
    )
    parser.add_argument(
        "--allow-pending", action="store_true", help="accept engines that are not verified yet"
    )
    parser.add_argument(
        "--allow-seeded",
        action="store_true",
        help="accept engines of dry runs, whose weights are seeded, not trained",
    )


def print_json(value: object) -> None:
    """Prints a value as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def positive(text: str) -> int:
    """Parses a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def output_file(name: str) -> Path:
    """Returns the path of an output file. What writes it creates its folder.

    Raises:
        UsageError: The path is a folder, a device, or a file of a feature cache; or this user may
            not write there.
    """
    path = Path(name)
    if path.exists() and not path.is_dir() and not path.is_file():
        raise UsageError(f"{path} is not a regular file", hint="give another path with --output")
    if (path.parent / "card.json").is_file():
        raise UsageError(
            f"{path.parent} is a feature cache; other files do not belong in it",
            hint="give a path outside it with --output",
        )
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="give the path of a file with --output")
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is a file, so {path} can't be written",
            hint="give another path with --output",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"you may not write to {folder}", hint="give another path with --output")
    return path
