"""``zoo-farm plan``: what a run would do, and why. Nothing is done or written."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from builders.cli.request import ask, places_to_plan, places_to_run
from builders.planning.decision import Action
from builders.planning.options import add_options
from builders.planning.plan import plan_farm
from builders.planning.report import FarmPlan, matrix_line, to_text
from zoo.cli.main import add_arguments
from zoo.repository.repository import Repository
from zoo.stores import open_store
from zoo.util.errors import ManifestError, UsageError


def add_commands(commands: Any) -> None:
    """Adds them to a parser's subcommands."""
    told = add_arguments(commands, "plan", plan)
    add_options(told, "plan")


def plan(options: argparse.Namespace) -> int:
    """Says what is published, what would be built and why, and what that takes."""
    if options.json and options.matrix:
        raise UsageError("JSON= and MATRIX= are two outputs: one at a time")
    started = time.perf_counter()
    made = plan_of(options)
    if options.json:
        print(made.to_json())
    elif options.matrix:
        print(matrix_line(made))
        for note in made.notes:
            print(note, file=sys.stderr)
        if not made.work:
            print("nothing to do: the matrix is empty", file=sys.stderr)
    else:
        print("\n".join(to_text(made)))
        seconds = time.perf_counter() - started
        print(f"{made.store}: {len(made.engines)} engines looked at in {seconds:.2f} s")
    return _status(made, options)


def _status(made: FarmPlan, options: argparse.Namespace) -> int:
    """Returns the exit status: not 0 where a manifest can't be read.

    A matrix is for the other models, and the run of a night tells of this one.
    """
    broken = [one for one in made.engines if one.action is Action.BLOCKED and not one.archs]
    for one in broken if options.matrix else ():
        print(f"{one.model}: {one.reason}", file=sys.stderr)
    return ManifestError.exit_code if broken and not options.matrix else 0


def plan_of(options: argparse.Namespace, *, plans: bool = True) -> FarmPlan:
    """Plans what the options of ``zoo`` ask for.

    Args:
        options: As ``zoo`` has them.
        plans: Whether ``TRT=`` may name several lines, and GPUs be elsewhere.
    """
    asked = ask(options, _to_stderr, plans=plans)
    try:
        where = places_to_plan(asked, options)
        if not plans:
            there = places_to_run(asked)
            where = lambda models: there  # noqa: E731
        return plan_farm(Repository(open_store(asked.store)), asked.request, where, asked.broken)
    finally:
        asked.chosen.executor.stop()


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)
