"""``zoo-farm nightly``: plan, build what changed, prove, publish, catalog, report, alert."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from builders.cli.options import published
from builders.cli.plan import plan_of
from builders.history.nights import add_run, checked_night, newest_night
from builders.publish.provenance import this_commit
from builders.run import regressions
from builders.run.catalog import make_site
from builders.run.summary import Summary
from builders.weights.mode import MODE_FACTS, WeightsMode, parse_mode
from zoo.catalog.night import NightlyRun
from zoo.repository.repository import Repository
from zoo.schema.index import ModelIndex
from zoo.stores import open_store
from zoo.util.clock import utc_now
from zoo.util.errors import RegressionError, TrustError, UsageError
from zoo.util.files import write_whole

RunZoo = Callable[[argparse.Namespace, str | None], tuple[int, Summary]]
"""Runs ``zoo`` in a night; returns its status and what it did."""


def run_night(options: argparse.Namespace, run_zoo: RunZoo) -> int:
    """Runs a night.

    Args:
        options: As ``zoo`` takes them, and ``report`` and ``issue``.
        run_zoo: Does the work.

    Raises:
        RegressionError: An engine is worse than the one before it.
    """
    started = utc_now()
    night = checked_night(options.night) if options.night else ""
    suffix = MODE_FACTS[parse_mode(options.weights or WeightsMode.MANIFEST)].suffix
    options.store = options.store or f"_repository{suffix}"
    options.site = options.site or f"_site{suffix}"
    repository = Repository(open_store(options.store))
    folder = (Path() if "://" in options.store else Path(options.store).parent) / "_nightly"
    issue, report = (
        Path(options.issue or folder / "issue.md"),
        Path(options.report or folder / "run.json"),
    )
    for path in (issue, report):
        if path.is_dir() or not _can_be_made(path.parent):
            raise UsageError(f"{path} can't be written: it is a folder, or in no folder")
    report.unlink(missing_ok=True)
    issue.unlink(missing_ok=True)  # of the night before: this one may die before it says anything
    plan = plan_of(options, plans=False)
    print(f"planned: {', '.join(f'{n} {what}' for what, n in plan.total.actions.items())}")
    before = {model.model: model for model in repository.model_indexes()}
    status, summary = run_zoo(options, started)
    after = list(repository.model_indexes())
    run = regressions.tell(
        plan, summary, regressions.regressions(before, after),
        started=started, finished=utc_now(), commit=this_commit(), retry=options.retry,
    )  # fmt: skip
    write_whole(report, run.to_json())
    print(f"report: {report}")
    add_run(repository, run, night)
    _alert(run, issue)
    show(options, repository, print)
    if run.regressions:
        raise RegressionError(
            f"{len(run.regressions)} measurements are worse than those of the engine before",
            hint=f"they are in {issue}, and on the catalog's report page",
        )
    return 1 if run.failed else 0 if summary.failed else status


def show(options: argparse.Namespace, repository: Repository, say: Callable[[str], None]) -> None:
    """Makes the catalog of a repository that this machine trusts; a builder need not trust any."""
    if repository.index() is None:
        return
    try:
        known = published(options)
    except TrustError as error:
        say(f"no catalog: {error.message}; who publishes makes it")
        return
    folder = Path(options.manifests)
    make_site(known, Path(options.site), options.base_url, manifests=folder)
    say(f"catalog: {Path(options.site) / 'index.html'}")


def tell_worse(repository: Repository, before: Iterable[ModelIndex], path: Path) -> int:
    """Writes an issue on engines that are worse than those before; for a publisher, who sees both.

    The report of the last night tells it too.

    Args:
        repository: As it is now.
        before: The index of each model before.
        path: Of the issue.

    Returns:
        How many measurements are worse.
    """
    worse = regressions.regressions({one.model: one for one in before}, repository.model_indexes())
    now = utc_now()
    run = NightlyRun(started=now, finished=now, commit=this_commit(), runs=0, regressions=worse)
    _alert(run, path)
    if worse:
        add_run(repository, run, newest_night(repository))
    return len(worse)


def _can_be_made(folder: Path) -> bool:
    """Whether a folder is there, or nothing is in the way of making it."""
    return folder.is_dir() or (not folder.exists() and _can_be_made(folder.parent))


def _alert(run: NightlyRun, path: Path) -> None:
    """Writes an issue's text, or removes that of the night before: title first, then the body."""
    found = regressions.issue(run)
    if found is None:
        path.unlink(missing_ok=True)
        return
    title, body = found
    write_whole(path, f"{title}\n\n{body}".encode())
    print(f"issue: {path}")
