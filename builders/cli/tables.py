"""Commands of ``zoo-farm`` that print reference tables: ``targets``, ``options``."""

from __future__ import annotations

import argparse
from typing import Any

from builders.cli import targets as targets_table
from builders.cli.reference import page
from builders.planning.options import makefile, table
from zoo.cli.command import add_arguments


def add_commands(commands: Any) -> None:
    """Adds these commands to the parser's subcommands."""
    cells = add_arguments(commands, "targets", targets)
    cells.add_argument("--json", action="store_true", help="the whole table as JSON")
    cells.add_argument("--sources", action="store_true", help="add the source of each cell")
    variables = add_arguments(commands, "options", options_table)
    variables.add_argument("--makefile", action="store_true", help="print options.mk instead")
    variables.add_argument(
        "--reference",
        action="store_true",
        help="print docs/reference/command-line.md instead",
    )


def targets(options: argparse.Namespace) -> int:
    """Shows the targets table: precisions by GPU and TRT=, and what each line requires."""
    text = (
        targets_table.to_json() if options.json else targets_table.to_text(sources=options.sources)
    )
    print(text)
    return 0


def options_table(options: argparse.Namespace) -> int:
    """Prints the table of options for README.md, or the contents of other generated files."""
    if options.reference:
        from builders.cli.main import farm_parser  # late: they import every command
        from zoo.cli.main import client_parser

        print(page([client_parser(), farm_parser()]), end="")
    else:
        print("\n".join(makefile() if options.makefile else table()))
    return 0
