"""``zoo-farm nightly``: plans, builds what changed, publishes, and reports what became worse."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from builders.cli.build import build
from builders.cli.catalog import update_catalog
from builders.cli.options import given_manifests
from builders.cli.plan import plan_of
from builders.cli.request import folder_beside
from builders.history.nights import add_run, checked_night, newest_night
from builders.planning.options import add_options
from builders.publish.provenance import this_commit
from builders.run import regressions
from builders.run.again import Again
from builders.weights.mode import MODE_FACTS, WeightsMode, mode_of, parse_mode
from zoo.catalog.night import NightlyRun
from zoo.cli.command import add_arguments
from zoo.repository.repository import Repository
from zoo.schema.index import ModelIndex
from zoo.stores import open_store
from zoo.util.clock import utc_now
from zoo.util.errors import RegressionError, UsageError
from zoo.util.files import write_whole
from zoo.util.names import counted


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's subcommands."""
    add_options(add_arguments(commands, "nightly", nightly), "nightly")


def nightly(options: argparse.Namespace) -> int:
    """Runs zoo, counts failures, and reports failed engines and regressions."""
    started = utc_now()
    options.locked = True  # weights that nobody has reviewed are not for the night
    night = checked_night(options.night) if options.night else ""
    suffix = MODE_FACTS[parse_mode(options.weights or WeightsMode.MANIFEST)].suffix
    options.store = options.store or f"_repository{suffix}"
    repository = Repository(open_store(options.store))
    issue, report = _output_files(options)
    again = again_of(options, f"_repository{suffix}")
    # Those of the previous night: this run may fail before it writes its own.
    report.unlink(missing_ok=True)
    issue.unlink(missing_ok=True)
    plan = plan_of(options, plans=False, say=lambda text: None)  # the run says the same
    print(f"planned: {', '.join(f'{n} {what}' for what, n in plan.total.actions.items())}")
    before = {model.model: model for model in repository.model_indexes()}
    built = build(options, night=started)
    after = list(repository.model_indexes())
    run = regressions.tell(
        plan, built.summary, regressions.regressions(before, after),
        started=started, finished=utc_now(), commit=this_commit(), retry=options.retry,
        losses=regressions.lost(before, after, again),
        outdone=regressions.outdone(before, after), again=again,
    )  # fmt: skip
    write_whole(report, run.to_json())
    print(f"report: {report}")
    add_run(repository, run, night)
    _write_issue(run, issue)
    update_catalog(built.store, built.site, options)
    if run.regressions:
        raise RegressionError(
            f"worse than the previous engine: {counted(len(run.regressions), 'measurement')}",
            hint=f"they are in {issue}, and on the catalog's report page",
        )
    if run.outdone:
        raise RegressionError(
            "farther from PyTorch than the published engine, which stays: "
            f"{counted(len(run.outdone), 'engine')}",
            hint=f"their numbers are in {issue}; other inputs make another engine",
        )
    if run.failed:
        return 1
    # run.failed has no engines that were withdrawn or disabled before: those raise no new alarm.
    return 0 if built.summary.failed else built.status


def again_of(options: argparse.Namespace, default_store: str) -> Again:
    """Returns what a command is to be run with again; its defaults need no mention."""
    given = argparse.Namespace(**vars(options))
    if options.store == default_store:
        given.store = ""
    return Again.of(given, given_manifests(options))


def report_regressions(
    repository: Repository, before: Iterable[ModelIndex], issue: Path
) -> tuple[int, int]:
    """Writes an issue about engines that are worse than those they replace, and about lost ones.

    A builder cannot tell: which engine another replaces is known once both are signed. The report
    of the last night is amended too.

    Args:
        repository: The repository after publishing.
        before: The index of each model before publishing.
        issue: File that the issue is written to.

    Returns:
        How many measurements are worse, and how many targets lost their verified engine.
    """
    indexes = {index.model: index for index in before}
    after = list(repository.model_indexes())
    again = Again.of(
        argparse.Namespace(store=repository.store.url, weights=mode_of(repository.kind()))
    )
    worse, losses = regressions.regressions(indexes, after), regressions.lost(indexes, after, again)
    outdone = regressions.outdone(indexes, after)
    now = utc_now()
    run = NightlyRun(
        started=now,
        finished=now,
        commit=this_commit(),
        runs=0,
        regressions=worse,
        failed=losses,
        outdone=outdone,
    )
    _write_issue(run, issue)
    if worse or losses or outdone:
        add_run(repository, run, newest_night(repository))
    return len(worse), len(losses)


def _output_files(options: argparse.Namespace) -> tuple[Path, Path]:
    """Returns the files for the issue and the report.

    Raises:
        UsageError: One of them can't be written; better known before a night's work than after.
    """
    folder = folder_beside(options.store, "_nightly")
    issue = Path(options.issue or folder / "issue.md")
    report = Path(options.report or folder / "run.json")
    for path in (issue, report):
        if path.is_dir() or not _can_be_made(path.parent):
            raise UsageError(f"{path} can't be written: it is a folder, or in no folder")
    return issue, report


def _can_be_made(folder: Path) -> bool:
    """Returns whether a folder exists, or no file stands in the way of creating it."""
    return folder.is_dir() or (not folder.exists() and _can_be_made(folder.parent))


def _write_issue(run: NightlyRun, path: Path) -> None:
    """Writes an issue, title first, then the body; removes an earlier one if all is well."""
    issue = regressions.issue(run)
    if issue is None:
        path.unlink(missing_ok=True)
        return
    title, body = issue
    write_whole(path, f"{title}\n\n{body}".encode())
    print(f"issue: {path}")
