"""What the command lines of this project share: parsers and options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from zoo.client.client import Client, connect, default_store
from zoo.schema.targets import PRECISIONS
from zoo.util.errors import UsageError

Command = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Raises :class:`~zoo.util.errors.UsageError` where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse complains of."""
        raise UsageError(f"{self.prog}: {message}", hint=f"{self.prog} --help lists what there is")


def add_arguments(commands: Any, name: str, command: Command) -> argparse.ArgumentParser:
    """Adds a subcommand whose help is its function's docstring."""
    text = (command.__doc__ or "").partition("\n")[0]
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command)
    return parser


def add_store(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names the repository."""
    parser.add_argument(
        "--store",
        default=default_store(),
        help="the repository (default $ZOO_STORE, else ./_repository)",
    )
    parser.add_argument(
        "--trust",
        metavar="ROOT",
        help="trust the repository from now on: its root.json, or the SHA-256 of its first root",
    )
    parser.add_argument(
        "--anonymous", action="store_true", help="ask an s3:// repository without credentials"
    )
    parser.add_argument("--allow-stale", action="store_true", help="take an index that is expired")


def client_of(options: argparse.Namespace) -> Client:
    """Opens the repository that the options name."""
    return connect(
        options.store,
        trust=options.trust,
        anonymous=options.anonymous,
        allow_stale=options.allow_stale,
        say=lambda text: print(text, file=sys.stderr),
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Adds the options that pick an engine of a model."""
    parser.add_argument("--target", help="a target by label, such as sm86-rtx1.7-fp16")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the engine")
    parser.add_argument(
        "--allow-pending", action="store_true", help="take an engine that has not been run"
    )
    parser.add_argument("--allow-seeded", action="store_true", help="take an engine of a dry run")


def output_file(name: str) -> Path:
    """Returns where a result goes, before any work is done for it.

    Raises:
        UsageError: It is a folder.
    """
    path = Path(name)
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="--output names the file itself")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
