"""``zoo-farm zoo``: builds, verifies and publishes engines, then updates the catalog."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builders.cli.catalog import update_catalog
from builders.cli.first_use import confirm_weights, lock_first
from builders.cli.request import places_to_run, read_request
from builders.history.failures import Failures
from builders.jobs.progress import Display
from builders.planning.options import add_options
from builders.publish.signer import open_desk
from builders.run.farm import Farm
from builders.run.summary import Summary
from builders.weights.mode import MODE_FACTS
from zoo.cli.command import add_arguments
from zoo.repository.repository import Repository
from zoo.stores import folder_of, open_store
from zoo.util.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        status: Exit status of the command.
        summary: What became of each engine.
        store: URL of the repository.
        site: Folder of the catalog.
    """

    status: int
    summary: Summary
    store: str
    site: Path


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's subcommands."""
    add_options(add_arguments(commands, "zoo", zoo), "zoo")


def zoo(options: argparse.Namespace) -> int:
    """Builds, verifies and publishes engines, then updates the catalog."""
    run = build(options)
    update_catalog(run.store, run.site, options)
    if run.summary.withheld and run.summary.is_nothing_else:
        raise next(iter(run.summary.withheld.values()))
    return run.status


def build(options: argparse.Namespace, *, night: str | None = None) -> Run:
    """Builds, verifies and publishes what the options select, and prints a summary.

    Args:
        options: Options of ``zoo``.
        night: When the nightly run started: its failures count towards disabling an engine. None
            for a run by hand.
    """
    display = Display()
    selected = read_request(options, display.say)
    executor = selected.chosen.executor
    repository = Repository(open_store(selected.store))
    try:
        request = replace(selected.request, places=places_to_run(selected))
        desk = open_desk(selected.store, options.keys, display.say)
        repository.store.check_writable()  # hours of builds would be lost on an unfit server
        repository.sign = desk.sign
        repository.claim(MODE_FACTS[request.weights].kind)  # or nothing is to be locked for it
        request = lock_first(request, display.say, locked=options.locked)
        farm = Farm(repository, executor, display, desk, Failures(repository, night=night))
        summary = farm.run(request)
        confirm_weights(request, summary.exported, display.say, locked=options.locked)
    finally:
        executor.stop()
    summary.failed.update(selected.broken)
    status = _print_summary(summary, selected.store, display)
    if desk.waiting:
        keys = "" if folder_of(selected.store) else " --keys FOLDER"
        waiting = f"{desk.waiting} wait for a signature"
        display.say(f"{waiting}: zoo-farm publish --store {selected.store}{keys}")
    return Run(status=status, summary=summary, store=selected.store, site=selected.site)


def _print_summary(summary: Summary, store: str, display: Display) -> int:
    """Prints a line per disabled or failed engine, then the totals; returns the exit status."""
    for sentence in summary.changes:
        display.say(sentence)
    for label, reason in summary.outdone.items():
        display.say(f"{label}: verified, but the published engine stays: {reason}")
    for label, reason in summary.disabled.items():
        display.say(f"none {label}: {reason}")
    for model, refused in summary.withheld.items():
        display.say(f"none {model}: {refused.message.removeprefix(f'{model}: ')}")
    for label, error in summary.failed.items():
        text = str(error).removeprefix(f"{label}: ")
        display.say(f"FAILED {label}: {text}")
    of_engines = summary.of_engines
    totals = [
        f"{len(labels)} {outcome}"
        for outcome, labels in (
            ("published", summary.published),
            ("verified again", summary.verified),
            ("verified, farther from PyTorch than what stays published", summary.outdone),
            ("already published, nothing to do", summary.current),
            ("changed in the index alone", summary.changes),
            ("ruled out by their tolerance", summary.disabled.keys() - set(of_engines)),
            (
                "disabled because engines missed tolerance or failed (RETRY=1 tries them again)",
                of_engines,
            ),
            ("withheld because of their licence", list(summary.withheld)),
            ("failed", list(summary.failed)),
        )
        if labels
    ]
    display.say(f"{store}: {', '.join(totals) if totals else 'nothing to build'}")
    if not summary.failed and not totals:
        raise UsageError("no engine matches the options")
    return 1 if summary.failed else 0
