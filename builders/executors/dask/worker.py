"""What a Dask worker runs: a job as JSON text in, its outcome as JSON text out.

Nothing is pickled but the name of :func:`run_task`: farm, scheduler and worker may have different
Pythons. The job itself runs in a child process, as everywhere; the files that it makes go to the
store as blobs. What the worker says on the way (progress, the log as it grows) goes back as events.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from builders.executors.base import Outcome
from builders.executors.dask.resources import Slot
from builders.executors.local import LocalExecutor
from builders.jobs.messages import FileName, parse_job
from builders.jobs.output_files import (
    LOG,
    RESULT,
    WORK,
    OutputFolder,
    named_files,
    read_log_end,
)
from builders.jobs.progress import Event
from builders.toolchains.interpreter import worker_command
from zoo.repository.repository import Repository
from zoo.schema.records import Blob
from zoo.stores import open_store
from zoo.util.errors import JobError, NotRunError, RepositoryError, ZooError

SLOT = "ZOO_FARM_SLOT"
"""The variable that tells a worker process which slot it is, as JSON."""

TOPIC = "caft-zoo"
"""The topic of what workers say while they work."""

LOG_LIMIT = 2**20  # bytes of a log that go back inside the answer
_TAIL = 4096  # bytes of a log that go back at once while it grows

Say = Callable[[dict[str, Any]], None]


class Task(BaseModel):
    """What a worker is sent.

    Attributes:
        id: Names the attempt, for its events.
        job: The job, as JSON text.
        timeout: Seconds that it may take.
        memory: Bytes that it may have; None for no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    job: str
    timeout: float
    memory: int | None = None


class Answer(BaseModel):
    """What a worker sends back.

    Attributes:
        result: ``result.json`` as it is; None when the job failed.
        error: Why it failed.
        hint: What to do about it.
        not_run: Whether that says nothing of the engine: the store, say, could not be reached.
        files: The files that the result names; blobs of the store.
        log: ``log.txt``, its end where it is long.
        seconds: That the child process took, and with start, upload and clean-up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    result: str | None = None
    error: str | None = None
    hint: str | None = None
    not_run: bool = False
    files: dict[FileName, Blob] = {}
    log: str = ""
    seconds: tuple[float, float] = (0.0, 0.0)


def describe_slot() -> str:
    """Returns which slot this process is, as JSON; empty when nobody said so."""
    return os.environ.get(SLOT, "")


def run_task(text: str) -> str:
    """Runs a :class:`Task` and returns its :class:`Answer`, both as JSON text. Never raises."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="zoo-job-") as scratch:
        try:
            answer = _run(Task.model_validate_json(text), Path(scratch), started)
        except ZooError as error:
            log = read_log_end(Path(scratch), LOG_LIMIT)
            of_the_job = isinstance(error, JobError) and not isinstance(error, NotRunError)
            answer = Answer(error=error.message, hint=error.hint, log=log, not_run=not of_the_job)
        except Exception as error:  # the rim of the worker: whatever it was goes into the answer
            text = f"{type(error).__name__}: {error}"
            answer = Answer(error=text, log=read_log_end(Path(scratch), LOG_LIMIT), not_run=True)
    return answer.model_dump_json()


def _run(task: Task, folder: Path, started: float) -> Answer:
    job = parse_job.validate_json(task.job)
    slot = Slot.model_validate_json(describe_slot())
    store = open_store(job.store)
    if store.local_path("x") is not None and store.size("repository.json") is None:
        raise RepositoryError(
            f"{job.store} is not on {platform.node()}, where a worker was to use it",
            hint="workers on several machines need a store that all reach: STORE=s3://… or a "
            "directory that they share, under one path",
        )
    say, is_wanted = _line_to_scheduler()
    say({"task": task.id, "started": slot.name})
    tail = _Tail(folder / WORK, lambda words: say({"task": task.id, "log": words}))

    def look() -> str | None:
        tail.send()
        return None if is_wanted() else "the farm does not want it any more"

    def report(event: Event) -> None:
        say({"task": task.id, "event": event.to_line()})

    executor = LocalExecutor(
        task.timeout,
        worker_command(sys.executable),
        worker_command(slot.python),
        memory=task.memory,
        look=look,
    )
    begun = time.perf_counter()
    try:
        outcome = executor.run(job, folder, report)
    finally:
        ran = time.perf_counter() - begun
        tail.send()
    result = (folder / RESULT).read_text(encoding="utf-8")
    log = read_log_end(folder, LOG_LIMIT)
    files = _upload(Repository(store), outcome)
    spent = (round(ran, 4), round(time.perf_counter() - started, 4))
    return Answer(result=result, files=files, log=log, seconds=spent)


def _upload(repository: Repository, outcome: Outcome) -> dict[str, Blob]:
    """Stores what a job returns."""
    names = named_files(outcome.result)
    return {name: repository.blobs.add(outcome.folder / name) for name in names}


class _Tail:
    """Sends what a log has grown by, at most its last few kilobytes at a time."""

    def __init__(self, folder: Path, send: Callable[[str], None]) -> None:
        self._folder = folder
        self._send = send
        self._at = 0

    def send(self) -> None:
        """Sends it, when there is any; a log that is no plain file is left to the end."""
        with suppress(FileNotFoundError, JobError), OutputFolder(self._folder) as opened:
            data, size = opened.read_end(LOG, "log", _TAIL, start=self._at)
            if data:
                self._send(data.decode(errors="replace"))
            self._at = size


def _line_to_scheduler() -> tuple[Say, Callable[[], bool]]:
    """Returns what tells the farm something, and what says whether it still wants the task."""
    from distributed import get_worker
    from distributed.worker import thread_state

    worker, key = get_worker(), thread_state.key

    def say(message: dict[str, Any]) -> None:
        worker.log_event(TOPIC, json.dumps(message))

    def is_wanted() -> bool:
        state = worker.state.tasks.get(key)
        return state is not None and state.state == "executing"

    return say, is_wanted
