"""Runs on a Dask worker: takes a job as JSON text and returns its outcome as JSON text.

Only the name of :func:`run_task` is pickled, because farm, scheduler and worker may have different
Pythons. The job runs in a child process, as with every executor; its output files are stored as
blobs. Progress and the growing log are sent back as events.
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
from zoo.util.causes import cause_of
from zoo.util.errors import JobError, NotRunError, RepositoryError, ZooError

SLOT = "ZOO_FARM_SLOT"
"""Environment variable with the :class:`Slot` of a worker process, as JSON."""

TOPIC = "caft-zoo"
"""Dask topic of the messages that workers send while a task runs."""

LOG_LIMIT = 2**20  # bytes of a log that an answer contains
_TAIL = 4096  # bytes of a growing log in one message


class Message(BaseModel):
    """What a worker sends while a task runs, as JSON.

    Attributes:
        task: Id of the task.
        started: Name of the slot that started it.
        event: A line of progress, as :meth:`Event.to_line` writes it.
        log: What the log has grown by.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    started: str | None = None
    event: str | None = None
    log: str | None = None

    def to_json(self) -> str:
        """Returns the message as JSON; fields that are None are absent."""
        return json.dumps(self.model_dump(exclude_none=True))


Send = Callable[[Message], None]


class Task(BaseModel):
    """What the farm sends to a worker.

    Attributes:
        id: Identifies the attempt in its messages.
        job: The job, as JSON text.
        timeout: Time limit in seconds.
        memory: Memory limit in bytes; None for no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    job: str
    timeout: float
    memory: int | None = None


class Answer(BaseModel):
    """What a worker returns for a task.

    Attributes:
        result: The content of ``result.json``; None if the job failed.
        error: Why it failed.
        hint: How to fix it.
        not_run: Whether the failure is not the job's fault: the store could not be reached, say.
        files: The files that the result names, as blobs in the store.
        log: The end of ``log.txt``.
        seconds: Duration of the child process, and in total with start, upload and clean-up.
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
    """Returns the slot of this process as JSON; empty if it is not a worker of a farm."""
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
        except Exception as error:  # the outermost handler: the answer reports any error
            text = f"{type(error).__name__}: {cause_of(error)}"
            answer = Answer(error=text, log=read_log_end(Path(scratch), LOG_LIMIT), not_run=True)
    return answer.model_dump_json()


def _run(task: Task, folder: Path, started: float) -> Answer:
    job = parse_job.validate_json(task.job)
    slot = Slot.model_validate_json(describe_slot())
    store = open_store(job.store)
    if store.local_path("x") is not None and store.size("repository.json") is None:
        raise RepositoryError(
            f"{job.store} does not exist on {platform.node()}, where a worker needs it",
            hint="workers on several machines need a store that all of them can reach: "
            "STORE=s3://… or a directory that they share, at the same path",
        )
    send, is_wanted = _connection()
    send(Message(task=task.id, started=slot.name))
    tail = _Tail(folder / WORK, lambda text: send(Message(task=task.id, log=text)))

    def look() -> str | None:
        tail.send()
        return None if is_wanted() else "the farm cancelled it"

    def report(event: Event) -> None:
        send(Message(task=task.id, event=event.to_line()))

    executor = LocalExecutor(
        task.timeout,
        worker_command(sys.executable),
        worker_command(slot.python),
        memory=task.memory,
        look=look,
        parses=False,
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
    """Stores the files of a job's result."""
    names = named_files(outcome.result)
    return {name: repository.blobs.add(outcome.folder / name) for name in names}


class _Tail:
    """Sends what a log has grown by since the last call, but at most its last few kilobytes."""

    def __init__(self, folder: Path, send: Callable[[str], None]) -> None:
        self._folder = folder
        self._send = send
        self._at = 0

    def send(self) -> None:
        """Sends it, if any. A log that is not a regular file is skipped; the result is checked."""
        with suppress(FileNotFoundError, JobError), OutputFolder(self._folder) as opened:
            data, size = opened.read_end(LOG, "log", _TAIL, start=self._at)
            if data:
                self._send(data.decode(errors="replace"))
            self._at = size


def _connection() -> tuple[Send, Callable[[], bool]]:
    """Returns functions that send a message to the farm and check if the task is still wanted."""
    from distributed import get_worker
    from distributed.worker import thread_state

    worker, key = get_worker(), thread_state.key

    def send(message: Message) -> None:
        worker.log_event(TOPIC, message.to_json())

    def is_wanted() -> bool:
        state = worker.state.tasks.get(key)
        return state is not None and state.state == "executing"

    return send, is_wanted
