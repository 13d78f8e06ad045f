"""``zoo-farm verify``: compares published engines with PyTorch on this machine."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from builders.cli.catalog import write_catalog
from builders.cli.executor import local_executor
from builders.cli.options import chosen_manifests, published, store_of
from builders.cli.request import failures_beside
from builders.jobs.progress import Display
from builders.planning.options import add_options
from builders.publish.signer import open_desk
from builders.toolchains.interpreter import toolchains_of
from zoo.cli.command import add_arguments
from zoo.client.host import this_machine


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's subcommands."""
    parser = add_arguments(commands, "verify", verify)
    parser.add_argument(
        "--pending", action="store_true", help="only engines that no machine has verified yet"
    )
    add_options(parser, "verify")


def verify(options: argparse.Namespace) -> int:
    """Verifies published engines that this machine can run; --pending: only unverified ones."""
    from builders.run.reverify import Reverifier, summarise

    manifests, broken = chosen_manifests(options)
    repository, display = published(options), Display()
    machine = this_machine()
    if options.builder_python:
        toolchains = tuple(toolchains_of(options.builder_python).values())
        machine = replace(machine, toolchains=toolchains)
    store = store_of(options)
    desk = open_desk(store, options.keys, display.say)
    repository.sign = desk.sign
    failures = failures_beside(store)
    reverifier = Reverifier(repository, local_executor(options), display, failures, machine, desk)
    models = {*manifests, *broken} if options.models else None
    outcome = reverifier.run(manifests, broken, models, pending_only=options.pending)
    for line in summarise(outcome):
        display.say(line)
    write_catalog(options)
    return 1 if outcome.failed else 0
