"""A night's run, as the farm tells it and the report shows it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.schema.records import Record
from zoo.util.errors import UsageError


class Part(BaseModel):
    """What is read from a file of another version: unknown fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")


class FailedJob(Part):
    """A job that failed.

    Attributes:
        model: Its model.
        target: Label of its target, or what else it was for.
        reason: What went wrong, as the summary says it.
        command: What reproduces it.
    """

    model: str
    target: str
    reason: str
    command: str


class Drift(Part):
    """A number of an engine beside that of the engine before it.

    Attributes:
        model: Their model.
        target: The label that both served.
        record: Build key of the newer one.
        measure: ``latency`` in ms, or ``cosine`` of the worst row.
        batch: Images at once.
        before: Of the older engine.
        after: Of the newer engine.
    """

    model: str
    target: str
    record: str
    measure: str
    batch: int
    before: float
    after: float


class NightlyRun(Record):
    """What a run of the farm says of itself, for the report.

    Attributes:
        started: When, ISO 8601 in UTC.
        finished: When.
        commit: Of the checkout that ran, or None.
        runs: How many runs this was, on one machine or on several.
        failed: Its jobs that failed, and cells that it disabled for that.
        planned: What was to be done, action to how many.
        expected_minutes: What that was expected to take, by history.
        published: Labels of the engines that were built and published.
        verified: Labels of those that were only proven again.
        current: How many needed nothing.
        disabled: Label to the reason why there is no such engine.
        regressions: Numbers that are worse than those of the engine before.
    """

    started: str
    finished: str
    commit: str | None = None
    runs: int = 1
    failed: tuple[FailedJob, ...] = ()
    planned: dict[str, int] = Field(default={})
    expected_minutes: float = 0.0
    published: tuple[str, ...] = ()
    verified: tuple[str, ...] = ()
    current: int = 0
    disabled: dict[str, str] = Field(default={})
    regressions: tuple[Drift, ...] = ()


def read_nightly(path: Path) -> NightlyRun:
    """Reads what a run says of itself.

    Raises:
        UsageError: The file can't be read, or says something else.
    """
    try:
        return NightlyRun.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(
            f"{path}: not what a nightly run writes: {where}: {first['msg']}",
            hint="docs/reference/index-schema.md has its fields",
        ) from error
