"""``zoo-farm plan``: prints what a run would do and why. It writes nothing."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from builders.cli.request import places_to_plan, places_to_run, read_request
from builders.planning.decision import Action
from builders.planning.options import add_options
from builders.planning.plan import plan_farm, read_published
from builders.planning.report import FarmPlan, matrix_line, to_text
from zoo.cli.command import add_arguments
from zoo.repository.repository import Repository
from zoo.stores import open_store
from zoo.util.errors import ManifestError, UsageError
from zoo.util.names import counted
from zoo.util.terminal import harmless


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's subcommands."""
    add_options(add_arguments(commands, "plan", show_plan), "plan")


def show_plan(options: argparse.Namespace) -> int:
    """Shows what is published, what would be built and why, and what that requires."""
    if options.json and options.matrix:
        raise UsageError("JSON= and MATRIX= can't be combined")
    started = time.perf_counter()
    plan = plan_of(options)
    if options.json:
        print(plan.to_json())
    elif options.matrix:
        print(matrix_line(plan))
        for note in plan.notes:
            print(harmless(note), file=sys.stderr)
        if not plan.work:
            print("nothing to do: the matrix is empty", file=sys.stderr)
    else:
        print("\n".join(to_text(plan)))
        seconds = time.perf_counter() - started
        print(f"{plan.store}: {counted(len(plan.engines), 'engine')} checked in {seconds:.2f} s")
    return _status(plan, options)


def _status(plan: FarmPlan, options: argparse.Namespace) -> int:
    """Returns the exit status: an error if a manifest can't be read.

    With a matrix it is 0: the other models must be built, and the nightly run reports this one.
    """
    broken = [
        engine for engine in plan.engines if engine.action is Action.BLOCKED and not engine.archs
    ]
    for engine in broken if options.matrix else ():
        print(harmless(f"{engine.model}: {engine.reason}"), file=sys.stderr)
    return ManifestError.exit_code if broken and not options.matrix else 0


def plan_of(
    options: argparse.Namespace, *, plans: bool = True, say: Callable[[str], None] | None = None
) -> FarmPlan:
    """Returns the plan of what the options of ``zoo`` select.

    Args:
        options: Options of ``zoo``.
        plans: Whether ``TRT=`` may name several lines, and GPUs that this machine lacks. False
            for the plan of a run here.
        say: Called with what the options lead to; to standard error if None.
    """
    selected = read_request(options, say or _to_stderr, plans=plans)
    # What a matrix lists, nightly runs build, and those lock nothing.
    locks_first = not (options.locked or getattr(options, "matrix", False))
    request = replace(selected.request, locks_first=locks_first)
    try:
        repository = Repository(open_store(selected.store))
        here = None if plans else places_to_run(selected)
        published = read_published(repository, selected.request.manifests)
        places = here or places_to_plan(selected, options, list(published.values()))
        request = replace(request, places=places)
        return plan_farm(repository, request, selected.broken, published)
    finally:
        selected.chosen.executor.stop()


def _to_stderr(text: str) -> None:
    print(harmless(text), file=sys.stderr)
