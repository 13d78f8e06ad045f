"""Runs: what the runs of a night say of themselves lies in the repository, for its report.

The machines of a night know nothing of each other, and who publishes has built nothing: what they
say is put together here. It is text for people, unsigned, and decides nothing.
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
"""Bytes that a run may say of itself."""

MOST = 512
"""Runs of a night that are read; a matrix of GitHub has 256."""


def checked_night(name: str) -> str:
    """Returns the name of a night.

    Raises:
        UsageError: It can't be part of a file's name.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise UsageError(
            f"a night can't be called '{name}'",
            hint="a name of letters, digits, dots, dashes and underscores: NIGHT=$GITHUB_RUN_ID",
        )
    return name


def add_run(repository: Repository, run: NightlyRun, night: str = "") -> None:
    """Writes down what a run says of itself.

    Args:
        repository: Where.
        run: What it says.
        night: Name that all runs of a night share; one of its own otherwise.
    """
    data = run.to_json()
    key = run_key(night or _compact(run.started), _compact(run.finished), sha256_bytes(data))
    repository.store.put(key, data, if_absent=True)


def newest_night(repository: Repository) -> str:
    """Returns the name of the night of the newest run; empty when there is none."""
    return _night(max(repository.store.list(RUNS), key=_time, default=None))


def last_night(repository: Repository, say: Callable[[str], None] = print) -> NightlyRun | None:
    """Returns what the runs of the last night say, as one; None when there is none.

    Args:
        repository: Where they lie.
        say: Is told of those that can't be read, which are left out.
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
    for entry in [one for one in listed if _night(one) == night][-MOST:]:
        try:
            data = repository.store.get(entry.key, limit=LARGEST)
            runs.append(NightlyRun.model_validate_json(data))
        except (KeyError, RepositoryError, ValidationError):
            say(f"{repository.store.url}: {entry.key} is left out of the report: can't be read")
    return together(runs)


def together(runs: Iterable[NightlyRun]) -> NightlyRun | None:
    """Puts what several runs say together."""
    told = list(runs)
    if not told:
        return None
    planned: Counter[str] = Counter()
    for run in told:
        planned.update(run.planned)
    commits = {run.commit for run in told}
    return NightlyRun(
        started=min(run.started for run in told),
        finished=max(run.finished for run in told),
        commit=commits.pop() if len(commits) == 1 else None,
        runs=sum(run.runs for run in told),
        failed=tuple(one for run in told for one in run.failed),
        planned=dict(planned),
        expected_minutes=round(sum(run.expected_minutes for run in told), 1),
        published=tuple(one for run in told for one in run.published),
        verified=tuple(one for run in told for one in run.verified),
        current=sum(run.current for run in told),
        disabled={label: why for run in told for label, why in run.disabled.items()},
        regressions=tuple(one for run in told for one in run.regressions),
    )


def _compact(time: str) -> str:
    return re.sub(r"[^0-9TZ.]", "", time)


def _night(entry: Entry | None) -> str:
    return "" if entry is None else entry.key.split("/")[1]


def _time(entry: Entry) -> str:
    return entry.key.rpartition("/")[2]
