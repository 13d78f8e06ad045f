"""Parses and runs the command lines of both packages; imports nothing of any command."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from zoo.inference.formats import accept_large_photos
from zoo.util.errors import UsageError, ZooError
from zoo.util.faults import MachineError, fault_of
from zoo.util.interrupts import INTERRUPTED, is_interrupt
from zoo.util.terminal import harmless, harmless_output

Command = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Argument parser that raises :class:`~zoo.util.errors.UsageError` instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raises argparse's error message."""
        raise UsageError(f"{self.prog}: {message}", hint=f"see {self.prog} --help")


def add_arguments(commands: Any, name: str, command: Command) -> argparse.ArgumentParser:
    """Adds a subcommand with the first line of its function's docstring as help."""
    text = (command.__doc__ or "").partition("\n")[0]
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command)
    return parser


def run_cli(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Parses and runs a command line, and prints errors. Both packages' commands use it.

    Returns:
        The exit status: 0, or the exit code of the error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may not be valid Unicode
            stream.reconfigure(errors="backslashreplace")
    accept_large_photos()
    options = argparse.Namespace()
    try:
        with harmless_output():
            options = parser.parse_args(arguments)
            command: Command = options.command
            return command(options)
    except (Exception, KeyboardInterrupt) as error:
        return _status_of(error, resumes=getattr(options, "resumes", False))


def _status_of(error: BaseException, *, resumes: bool) -> int:
    """Prints why a command failed; raises the error again if that is a fault of the code."""
    if is_interrupt(error):
        kept = "; finished work is kept, and the next run resumes" if resumes else ""
        print(f"interrupted{kept}", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, ZooError):
        print(f"error: {harmless(str(error))}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, BrokenPipeError):  # the reading end of a pipe was closed
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    if isinstance(error, OSError):
        print(harmless(f"error: {error.filename or 'system'}: {error.strerror}"), file=sys.stderr)
        return 1
    if reason := fault_of(error):
        print(f"error: {reason}\n  free some, and run the same command again", file=sys.stderr)
        return MachineError.exit_code
    raise error
