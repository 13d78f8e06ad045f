"""``zoo-farm``: parses the command line and runs the command."""

from __future__ import annotations

import argparse
import sys

from builders.cli import (
    add,
    build,
    builders,
    catalog,
    chunks,
    cluster,
    images,
    keys,
    lock,
    manifests,
    measure,
    models,
    nightly,
    plan,
    reinstate,
    repository,
    tables,
    verify,
    worker,
)
from builders.paths import ROOT
from zoo.cli.main import Parser, run_cli

COMMAND_GROUPS = (
    plan,
    build,
    nightly,
    verify,
    catalog,
    repository,
    chunks,
    reinstate,
    keys,
    builders,
    add,
    lock,
    manifests,
    models,
    measure,
    images,
    cluster,
    tables,
    worker,
)
"""Modules whose ``add_commands`` adds their commands; ``--help`` lists them in this order."""


def main() -> int:
    """Entry point of ``zoo-farm``."""
    return run_cli(farm_parser(), sys.argv[1:])


def farm_parser() -> argparse.ArgumentParser:
    """Returns the argument parser of ``zoo-farm``."""
    parser = Parser(prog="zoo-farm", description="Build, verify and publish engines.")
    parser.add_argument(
        "--manifests",
        default=str(ROOT / "manifests"),
        metavar="DIR",
        help="folder of manifests (default: manifests)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    # options --reference describes the parser itself; every command of a farm resumes after Ctrl-C
    parser.set_defaults(parser=parser, resumes=True)
    for group in COMMAND_GROUPS:
        group.add_commands(commands)
    return parser
