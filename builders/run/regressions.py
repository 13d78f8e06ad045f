"""Summaries of nightly runs, and the issue opened on regressions or failures. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from builders.planning.decision import WORK, Action
from builders.planning.report import FarmPlan
from builders.publish.outdone import cosine_fell
from builders.run.again import Again
from builders.run.summary import Summary
from builders.run.unavailable import newly_outdone
from zoo.catalog.night import Drift, FailedJob, NightlyRun
from zoo.catalog.report import drift
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.records import Status
from zoo.schema.targets import EngineName, Label, cell_of

SLOWER = 1.10
"""A latency whose whole interval is above this multiple of the previous engine's is a regression,
and so is a ratio to PyTorch as far below. Times without an interval were not measured well enough
to tell: they come from older versions."""


_ALL = "all"
"""The target of a job that concerns all engines of a model."""


def regressions(before: Mapping[str, ModelIndex], after: Iterable[ModelIndex]) -> tuple[Drift, ...]:
    """Compares the current engines with the previous ones.

    Args:
        before: The index of each model before the run.
        after: The indexes after it.

    Returns:
        Engines that are slower, or farther from PyTorch, than the previous engine of the same
        target on the same kind of machine.
    """
    worse: list[Drift] = []
    for model in after:
        if model.model not in before:
            continue
        old = dict(_cells(before[model.model]))
        for label, entry in _cells(model):
            if label in old and entry != old[label]:
                worse += filter(_is_regression, drift(model.model, old[label], entry, label))
    return tuple(worse)


def lost(
    before: Mapping[str, ModelIndex], after: Iterable[ModelIndex], again: Again | None = None
) -> tuple[FailedJob, ...]:
    """Returns the targets that a verified engine was published for before, and none is after.

    Args:
        before: The index of each model before the run.
        after: The indexes after it.
        again: What the run was run with.
    """
    again = again or Again()
    indexes = {model.model: model for model in after}
    gone = (
        (EngineName(model, Label.read(cell)), _why_lost(cell, indexes.get(model)))
        for model, index in before.items()
        for cell in _usable(index)
        if cell not in _usable(indexes.get(model))
    )
    return tuple(_job(name, why, again.command(name)) for name, why in gone)


def outdone(before: Mapping[str, ModelIndex], after: Iterable[ModelIndex]) -> dict[str, str]:
    """Returns the engines that did not replace the published one since, and why.

    Args:
        before: The index of each model before the run.
        after: The indexes after it.
    """
    return {
        str(EngineName(model.model, Label.joined(engine.targets))): engine.reason
        for model in after
        for engine in newly_outdone(before.get(model.model), model)
    }


def _usable(model: ModelIndex | None) -> list[str]:
    """Returns the targets that clients get a verified engine for, superseded or not."""
    return list(
        dict.fromkeys(
            cell_of(label)
            for entry in (model.engines if model else ())
            if entry.status is Status.VERIFIED
            for label in entry.targets
        )
    )


def _why_lost(cell: str, model: ModelIndex | None) -> str:
    """Returns why no verified engine is published for a target any more."""
    text = "a verified engine was published, but none is now: "
    if model is None:
        return f"{text}the model left the index"
    for entry in model.current:
        if cell in map(cell_of, entry.targets):
            return f"{text}{entry.status}, {entry.reason or 'for no stated reason'}"
    for disabled in model.disabled:
        if cell in map(cell_of, disabled.targets):
            return f"{text}{disabled.reason}"
    return f"{text}it was made with weights, a cut or preprocessing that the manifest changed"


def _cell_or_text(target: str) -> str:
    return cell_of(target) if target != _ALL else target


def _cells(model: ModelIndex) -> Iterator[tuple[str, EngineEntry]]:
    for entry in model.current:
        for label in entry.targets:
            yield cell_of(label), entry


def _is_regression(change: Drift) -> bool:
    match change.measure:
        case "latency":
            before, after = change.before_interval, change.after_interval
            return bool(before and after and after[0] > SLOWER * before[1])
        case "ratio":
            before, after = change.before_interval, change.after_interval
            return bool(before and after and SLOWER * after[1] < before[0])
    return cosine_fell(change.before, change.after)


def failed_jobs(
    plan: FarmPlan, summary: Summary, retry: bool = False, again: Again | None = None
) -> tuple[FailedJob, ...]:
    """Returns what failed in a run, with the commands that reproduce it.

    Engines that an earlier run withdrew or disabled are left out, unless they were to be retried.
    """
    again = again or Again()
    known = {
        f"{engine.model} {engine.label}"
        for engine in plan.engines
        if engine.action is Action.WITHDRAWN or (engine.action is Action.DISABLED and not retry)
    }
    reasons = {label: error.message for label, error in summary.failed.items()}
    commands = {label: error.command for label, error in summary.failed.items()}
    reasons |= {label: summary.disabled[label] for label in summary.of_engines}
    commands |= summary.commands
    failed = {EngineName.read(label): label for label in reasons if label not in known}
    return tuple(
        _job(
            name,
            reasons[label],
            commands.get(label) or again.command(name, retry=label in summary.disabled),
        )
        for name, label in failed.items()
    )


def _job(name: EngineName, text: str, command: str) -> FailedJob:
    return FailedJob(model=name.model, target=str(name.label or _ALL), reason=text, command=command)


def tell(
    plan: FarmPlan,
    summary: Summary,
    worse: tuple[Drift, ...],
    *,
    started: str,
    finished: str,
    commit: str | None,
    retry: bool = False,
    losses: tuple[FailedJob, ...] = (),
    outdone: Mapping[str, str] | None = None,
    again: Again | None = None,
) -> NightlyRun:
    """Returns the summary of a nightly run.

    Args:
        plan: The plan made before it.
        summary: Its outcome.
        worse: Its regressions.
        started: ISO 8601 in UTC.
        finished: ISO 8601 in UTC.
        commit: Commit of the checkout.
        retry: Whether disabled engines were tried again.
        losses: Targets that lost their verified engine, for a reason that is reported or not.
        outdone: From label to reason, of engines that did not replace the published one.
        again: What it was run with.
    """
    failed = failed_jobs(plan, summary, retry, again)
    reported = {(job.model, _cell_or_text(job.target)) for job in failed}
    failed += tuple(job for job in losses if (job.model, _cell_or_text(job.target)) not in reported)
    return NightlyRun(
        started=started,
        finished=finished,
        commit=commit,
        failed=failed,
        planned={action: n for action, n in plan.total.actions.items() if action in WORK},
        expected_minutes=round(plan.total.gpu_minutes + plan.total.cpu_minutes, 1),
        published=tuple(summary.published),
        verified=tuple(summary.verified),
        current=len(summary.current),
        disabled=dict(summary.disabled),
        regressions=worse,
        outdone=dict(outdone or {}),
    )


def issue(run: NightlyRun) -> tuple[str, str] | None:
    """Returns title and body (Markdown) of an issue about a run; None if nothing went wrong."""
    if not run.failed and not run.regressions and not run.outdone:
        return None
    counts = (
        ("regression", len(run.regressions)),
        ("outdone engine", len(run.outdone)),
        ("failure", len(run.failed)),
    )
    parts = [f"{n} {what}{'s' * (n > 1)}" for what, n in counts if n]
    lines = [f"Run of {run.started} to {run.finished}, commit {run.commit or 'unknown'}."]
    if run.regressions:
        lines += ["", "| engine | measure | batch | before | after | change |"]
        lines += ["| --- | --- | ---: | ---: | ---: | ---: |", *map(_row, run.regressions)]
    if run.outdone:
        lines += [
            "",
            "Verified, but farther from PyTorch than the published engine, which stays:",
            "",
        ]
        lines += [f"- {label}: {reason}" for label, reason in run.outdone.items()]
    for job in run.failed:
        lines += ["", f"### {job.model} {job.target}", "", *_quoted(job.reason)]
        lines += ["", f"    {job.command}"]
    return f"Nightly of {run.started[:10]}: {', '.join(parts)}", "\n".join(lines) + "\n"


def _row(change: Drift) -> str:
    before, after = change.before, change.after
    if change.measure == "latency":
        numbers = f"{before:.3f} ms | {after:.3f} ms | {after / before - 1:+.1%}"
    elif change.measure == "ratio":
        numbers = f"{before:.2f} times | {after:.2f} times | {after / before - 1:+.1%}"
    else:
        numbers = f"{before:.7f} | {after:.7f} | {after - before:+.1e}"
    return f"| {change.model} {change.target} | {change.measure} | {change.batch} | {numbers} |"


def _quoted(text: str) -> list[str]:
    """Returns text as a code block, so that a library's message is not read as markup."""
    return [f"    {line}" for line in text.splitlines()]
