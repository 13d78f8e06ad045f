"""Nightly: what a run says of itself, and when it calls somebody. Pure functions of data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from builders.planning.decision import WORK, Action
from builders.planning.report import FarmPlan
from builders.run.summary import Summary
from zoo.catalog.night import Drift, FailedJob, NightlyRun
from zoo.catalog.report import drift
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.runtimes import Runtime
from zoo.schema.targets import EngineName, Label, cell_of

SLOWER = 1.10
"""A latency of more than so many times that of the engine before is a regression."""

FARTHER, LEAST_FALL = 2.0, 1e-5
"""So is a worst cosine that is more than so many times as far from 1, and fell by more than so
much: less is what another order of summation does."""


def regressions(before: Mapping[str, ModelIndex], after: Iterable[ModelIndex]) -> tuple[Drift, ...]:
    """Compares the engines that are current with those that were before.

    Args:
        before: The index of each model before the run.
        after: Those after it.

    Returns:
        What is slower or farther from PyTorch than the engine before it on the same target, and on
        the same kind of machine.
    """
    found = []
    for model in after:
        if model.model not in before:
            continue
        old = dict(_cells(before[model.model]))
        for label, entry in _cells(model):
            if label in old and entry != old[label]:
                found += [one for one in drift(model.model, old[label], entry, label) if _bad(one)]
    return tuple(found)


def _cells(model: ModelIndex) -> Iterator[tuple[str, EngineEntry]]:
    for entry in model.current:
        for label in entry.targets:
            yield cell_of(label), entry


def _bad(one: Drift) -> bool:
    if one.measure == "latency":
        return one.after > SLOWER * one.before
    fall = one.before - one.after
    return fall > LEAST_FALL and 1 - one.after > FARTHER * (1 - one.before)


def failed_jobs(plan: FarmPlan, summary: Summary, retry: bool = False) -> tuple[FailedJob, ...]:
    """Returns what failed in a run, with the command that shows it again.

    What an earlier run withdrew or disabled is known, unless it was to be tried again; what this
    one disabled is not.
    """
    known = {
        f"{engine.model} {engine.label}"
        for engine in plan.engines
        if engine.action is Action.WITHDRAWN or (engine.action is Action.DISABLED and not retry)
    }
    reasons = {label: error.message for label, error in summary.failed.items()}
    commands = {label: error.command for label, error in summary.failed.items()}
    reasons |= {label: summary.disabled[label] for label in summary.of_engines}
    commands |= summary.commands
    return tuple(
        _job(label, text, commands.get(label))
        for label, text in reasons.items()
        if label not in known
    )


def _job(label: str, text: str, again: str | None) -> FailedJob:
    name = EngineName.read(label)
    return FailedJob(
        model=name.model,
        target=str(name.label or "all"),
        reason=text.partition("\n")[0],
        command=again or f"zoo-farm zoo --models {name.model}{_options(name.label)}",
    )


def _options(label: Label | None) -> str:
    """Returns the options that ask for the engine of a label."""
    if label is None:
        return ""
    line = label.runtime
    trt = "" if line.kind == Runtime.ORT else f" --trt {line.asked}"
    return f" --gpu {','.join(label.archs)}{trt}"


def tell(
    plan: FarmPlan,
    summary: Summary,
    worse: tuple[Drift, ...],
    *,
    started: str,
    finished: str,
    commit: str | None,
    retry: bool = False,
) -> NightlyRun:
    """Says what a run did.

    Args:
        plan: Made before it.
        summary: What it did.
        worse: Its regressions.
        started: ISO 8601 in UTC.
        finished: The same.
        commit: Of the checkout.
        retry: Whether what is disabled was tried again.
    """
    return NightlyRun(
        started=started,
        finished=finished,
        commit=commit,
        failed=failed_jobs(plan, summary, retry),
        planned={action: n for action, n in plan.total.actions.items() if action in WORK},
        expected_minutes=round(plan.total.gpu_minutes + plan.total.cpu_minutes, 1),
        published=tuple(summary.published),
        verified=tuple(summary.verified),
        current=len(summary.current),
        disabled={label: text.partition("\n")[0] for label, text in summary.disabled.items()},
        regressions=worse,
    )


def issue(run: NightlyRun) -> tuple[str, str] | None:
    """Returns title and body (Markdown) of an issue about a run; None where all is well."""
    if not run.failed and not run.regressions:
        return None
    counts = (("regression", len(run.regressions)), ("failure", len(run.failed)))
    said = [f"{n} {what}{'s' * (n > 1)}" for what, n in counts if n]
    lines = [f"Run of {run.started} to {run.finished}, commit {run.commit or 'unknown'}."]
    if run.regressions:
        lines += ["", "| engine | measure | batch | before | after | change |"]
        lines += ["| --- | --- | ---: | ---: | ---: | ---: |", *map(_row, run.regressions)]
    for one in run.failed:
        lines += ["", f"### {one.model} {one.target}", "", *_quoted(one.reason)]
        lines += ["", f"    {one.command}"]
    return f"Nightly of {run.started[:10]}: {', '.join(said)}", "\n".join(lines) + "\n"


def _row(one: Drift) -> str:
    if one.measure == "latency":
        numbers = f"{one.before:.3f} ms | {one.after:.3f} ms | {one.after / one.before - 1:+.1%}"
    else:
        numbers = f"{one.before:.7f} | {one.after:.7f} | {one.after - one.before:+.1e}"
    return f"| {one.model} {one.target} | {one.measure} | {one.batch} | {numbers} |"


def _quoted(text: str) -> list[str]:
    """Returns text as a block of code: what a library said must not become markup."""
    return [f"    {line}" for line in text.splitlines()]
