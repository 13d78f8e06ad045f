"""``zoo completion``: scripts that complete commands, options and files in a shell."""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.command import add_arguments
from zoo.util.errors import MissingPackageError

SHELLS = ("bash", "zsh", "tcsh")
_FILES = frozenset({"PHOTO", "FILE", "CACHE", "DATASET", "DIR", "ROOT"})
"""What arguments that are paths are called in help."""


def completion(options: argparse.Namespace) -> int:
    """Prints a script that completes commands in a shell: eval "$(zoo completion bash)"."""
    try:
        import shtab
    except ImportError as error:
        raise MissingPackageError(
            "shtab is not installed", hint="pip install 'caft-zoo[completion]'"
        ) from error
    _mark_paths(options.parser)
    print(shtab.complete(options.parser, options.shell))
    return 0


def _mark_paths(parser: argparse.ArgumentParser) -> None:
    """Marks the arguments that are paths, so that they are completed with files."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for own in action.choices.values():
                _mark_paths(own)
        elif action.metavar in _FILES or "--store" in action.option_strings:
            action.complete = shtab.FILE  # type: ignore[attr-defined]


def add_command(commands: Any) -> None:
    """Adds the command to ``zoo``."""
    parser = add_arguments(commands, "completion", completion)
    parser.add_argument("shell", choices=SHELLS, help="the shell")
