"""``zoo completion``: scripts that complete commands, options, models and files in a shell."""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.command import add_arguments
from zoo.util.errors import MissingPackageError

SHELLS = ("bash", "zsh", "fish", "tcsh")
_FILES = frozenset({"PHOTO", "FILE", "CACHE", "DATASET", "DIR", "ROOT"})
"""What arguments that are paths are called in help."""

_MODELS = frozenset({"model", "models", "patterns"})
"""Arguments that are models of the repository."""

_LIST = "zoo list --names </dev/null 2>/dev/null"
"""Prints them; without a terminal it does not ask whether to trust a repository."""


def completion(options: argparse.Namespace) -> int:
    """Prints a script that completes commands in a shell: eval "$(zoo completion bash)"."""
    try:
        import shtab
    except ImportError as error:
        raise MissingPackageError(
            "shtab is not installed", hint="pip install 'caft-zoo[completion]'"
        ) from error
    _mark(options.parser)
    print(shtab.complete(options.parser, options.shell))
    return 0


def _mark(parser: argparse.ArgumentParser) -> None:
    """Marks the arguments that are paths or models, so that they are completed."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for own in action.choices.values():
                _mark(own)
        elif action.metavar in _FILES or "--store" in action.option_strings:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.dest in _MODELS:
            # tcsh has no way to hide what a command says on standard error.
            action.complete = {**shtab.cmd(_LIST), "tcsh": ""}  # type: ignore[attr-defined]


def add_command(commands: Any) -> None:
    """Adds the command to ``zoo``."""
    parser = add_arguments(commands, "completion", completion)
    parser.add_argument("shell", choices=SHELLS, help="the shell")
