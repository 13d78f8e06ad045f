"""The summary of a nightly run, which the farm writes and the report shows."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from zoo.catalog.documents import read_document
from zoo.schema.records import Record


class Part(BaseModel):
    """Base of a report's records: unknown fields are kept, for files of other versions."""

    model_config = ConfigDict(frozen=True, extra="allow")


class FailedJob(Part):
    """A job that failed.

    Attributes:
        model: Its model.
        target: Label of its target, or another description of what it was for.
        reason: Why it failed.
        command: A command line that reproduces the failure.
    """

    model: str
    target: str
    reason: str
    command: str


class Drift(Part):
    """A measurement of an engine next to that of the engine that it superseded.

    Attributes:
        model: Their model.
        target: Label of a target that both served.
        record: Build key of the newer engine.
        measure: ``latency`` (in ms), ``ratio`` (PyTorch's latency over the engine's, timed in
            turns) or ``cosine`` (the lowest of any image).
        batch: Batch size.
        before: The older engine's value.
        after: The newer engine's value.
        before_interval: Encloses the older value with 95%; None where it is not known.
        after_interval: The same for the newer value.
    """

    model: str
    target: str
    record: str
    measure: str
    batch: int
    before: float
    after: float
    before_interval: tuple[float, float] | None = None
    after_interval: tuple[float, float] | None = None


class NightlyRun(Record):
    """The farm's summary of a nightly run.

    Attributes:
        started: When it started, ISO 8601 in UTC.
        finished: When it finished, ISO 8601 in UTC.
        commit: Commit of the checkout that ran, or None.
        runs: Number of runs that the summary covers, on one machine or several.
        failed: Jobs that failed, those whose cell was disabled for it included.
        planned: Number of planned jobs by action.
        expected_minutes: Expected duration, estimated from earlier runs.
        published: Labels of the engines that were built and published.
        verified: Labels of the engines that were only verified again.
        current: Number of engines that were up to date.
        disabled: Label to the reason why that engine is disabled.
        outdone: Label to the reason why that engine did not replace the published one.
        regressions: Measurements that are worse than those of the superseded engine.
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
    outdone: dict[str, str] = Field(default={})
    regressions: tuple[Drift, ...] = ()


def read_nightly(path: Path) -> NightlyRun:
    """Reads the summary of a nightly run.

    Raises:
        UsageError: The file can't be read or is not such a summary.
    """
    return read_document(
        path, NightlyRun, "not the summary of a nightly run",
        "its fields are described in docs/reference/index-schema.md",
    )  # fmt: skip
