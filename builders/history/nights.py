"""Stores summaries of nightly runs in the repository and merges them for the report.

The machines of a night do not know of each other, and the publisher builds nothing, so their
summaries are merged here. They are unsigned text for people; nothing is decided from them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

from pydantic import ValidationError

from zoo.catalog.night import NightlyRun
from zoo.repository.repository import Repository
from zoo.schema.layout import RUNS, run_key
from zoo.stores import Entry
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError, UsageError

LARGEST = 1 << 20
"""Largest summary that is read, bytes."""

MOST = 512
"""Most summaries of a night that are read; a GitHub matrix has at most 256 jobs."""


def checked_night(name: str) -> str:
    """Returns the name of a night if it is valid.

    Raises:
        UsageError: It can't be part of a file's name.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise UsageError(
            f"'{name}' is not a valid name of a night",
            hint="use letters, digits, dots, dashes and underscores: NIGHT=$GITHUB_RUN_ID",
        )
    return name


def add_run(repository: Repository, run: NightlyRun, night: str = "") -> None:
    """Stores the summary of a run.

    Args:
        repository: The repository.
        run: The summary.
        night: Name that all runs of a night share; empty for a night of its own.
    """
    data = run.to_json()
    key = run_key(night or _compact(run.started), _compact(run.finished), sha256_bytes(data))
    repository.store.put(key, data, if_absent=True)


def newest_night(repository: Repository) -> str:
    """Returns the name of the night of the newest run; empty if there is none."""
    return _night(max(repository.store.list(RUNS), key=_time, default=None))


def last_night(repository: Repository, say: Callable[[str], None] = print) -> NightlyRun | None:
    """Returns the merged summary of the last night's runs; None if there is none.

    Args:
        repository: The repository.
        say: Called with a message for each summary that can't be read and is left out.
    """
    try:
        listed = sorted(repository.store.list(RUNS), key=_time)
    except RepositoryError as error:  # plain HTTP, or a reader that may not list
        say(f"the report goes without what runs say of themselves: {error}")
        return None
    if not listed:
        return None
    night = _night(listed[-1])
    runs = []
    for entry in [entry for entry in listed if _night(entry) == night][-MOST:]:
        try:
            data = repository.store.get(entry.key, limit=LARGEST)
            runs.append(NightlyRun.model_validate_json(data))
        except (KeyError, RepositoryError, ValidationError):
            say(f"{repository.store.url}: {entry.key} is left out of the report: can't be read")
    return merge(runs)


def merge(runs: Iterable[NightlyRun]) -> NightlyRun | None:
    """Merges the summaries of several runs; None if there are none."""
    merged = list(runs)
    if not merged:
        return None
    planned: Counter[str] = Counter()
    for run in merged:
        planned.update(run.planned)
    commits = {run.commit for run in merged}
    return NightlyRun(
        started=min(run.started for run in merged),
        finished=max(run.finished for run in merged),
        commit=commits.pop() if len(commits) == 1 else None,
        runs=sum(run.runs for run in merged),
        failed=tuple(job for run in merged for job in run.failed),
        planned=dict(planned),
        expected_minutes=round(sum(run.expected_minutes for run in merged), 1),
        published=tuple(label for run in merged for label in run.published),
        verified=tuple(label for run in merged for label in run.verified),
        current=sum(run.current for run in merged),
        disabled={label: why for run in merged for label, why in run.disabled.items()},
        outdone={label: why for run in merged for label, why in run.outdone.items()},
        regressions=tuple(drift for run in merged for drift in run.regressions),
    )


def _compact(time: str) -> str:
    return re.sub(r"[^0-9TZ.]", "", time)


def _night(entry: Entry | None) -> str:
    return "" if entry is None else entry.key.split("/")[1]


def _time(entry: Entry) -> str:
    return entry.key.rpartition("/")[2]
