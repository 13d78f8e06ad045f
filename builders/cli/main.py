"""``zoo-farm``: parses the command line and runs the command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from builders.paths import ROOT
from zoo.cli.command import Parser, run_cli

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "plan": ("plan",),
    "build": ("zoo",),
    "nightly": ("nightly",),
    "verify": ("verify",),
    "catalog": ("catalog",),
    "repository": ("publish", "withdraw", "gc", "check", "explain"),
    "chunks": ("chunks",),
    "reinstate": ("reinstate",),
    "keys": ("keys",),
    "builders": ("builders",),
    "add": ("add",),
    "lock": ("lock",),
    "manifests": ("unlocked", "schema", "facts"),
    "models": ("models",),
    "measure": ("compare", "accuracy", "torch-speed", "costs"),
    "images": ("images", "image"),
    "cluster": ("cluster",),
    "tables": ("targets", "options"),
    "worker": ("worker",),
}
"""Modules of this package whose ``add_commands`` adds commands, and which: only the module of the
command is imported. ``--help`` lists them in this order."""


def main() -> int:
    """Entry point of ``zoo-farm``."""
    arguments = sys.argv[1:]
    return run_cli(farm_parser(command_in(arguments)), arguments)


def command_in(arguments: Sequence[str]) -> str | None:
    """Returns the command of a command line; None if only the whole parser can tell."""
    words = arguments[2:] if arguments[:1] == ["--manifests"] else arguments
    known = (name for names in COMMANDS.values() for name in names)
    return words[0] if words and words[0] in known else None


def farm_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Returns the argument parser of ``zoo-farm``.

    Args:
        command: The command that is to be parsed; None for all.
    """
    parser = Parser(prog="zoo-farm", description="Build, verify and publish engines.")
    parser.add_argument(
        "--manifests",
        default=str(ROOT / "manifests"),
        metavar="DIR",
        help="folder of manifests (default: manifests)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    parser.set_defaults(resumes=True)  # every command of a farm resumes after Ctrl-C
    for module, names in COMMANDS.items():
        if command is None or command in names:
            import_module(f"builders.cli.{module}").add_commands(commands)
    return parser
