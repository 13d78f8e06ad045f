"""The Dask executor runs jobs in parallel on the workers of a cluster."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from builders.executors.base import Outcome
from builders.executors.dask import offers
from builders.executors.dask.resources import Slot, needs_of
from builders.executors.dask.slots import Slots
from builders.executors.dask.worker import (
    LOG_LIMIT,
    TOPIC,
    Answer,
    Message,
    Task,
    describe_slot,
    run_task,
)
from builders.executors.local import last_words
from builders.jobs.made_engines import check_made
from builders.jobs.messages import Failure, Job
from builders.jobs.output_files import (
    JOB,
    LIMITS,
    LOG,
    QUARANTINE,
    RESULT,
    check_size,
    named_files,
    write_file,
)
from builders.jobs.output_formats import check_formats
from builders.jobs.progress import Event, Report
from builders.jobs.results import read_result
from zoo.cluster.tls import connect
from zoo.repository.repository import Repository
from zoo.schema.targets import Arch, RuntimeLine, Toolchain
from zoo.stores import open_store
from zoo.util.causes import cause_of
from zoo.util.errors import ClusterError, JobError, NotRunError, QuarantineError
from zoo.util.version import __version__

KILLS = 3
"""Number of workers that may die while running a job before it is quarantined."""

_REFRESH = 2.0  # seconds between updates of the list of workers
_GATHER = 60.0  # seconds to fetch an answer, which is small
_FORGET = 5.0  # seconds to wait for the scheduler to cancel a task
_MOST = 256  # upper limit of jobs submitted at once


class DaskExecutor:
    """Runs each job on a worker that has the resources it needs.

    If a worker dies, its job runs again on another one; a job that has killed three is quarantined.
    Output files come back through the store.

    Args:
        scheduler: Its address, ``tls://host:8786``.
        certs: Folder of certificates; None for plain TCP on loopback.
        timeout: Time limit of a job in seconds.
        memory: Memory limit of a job in bytes; None for no limit.
        patience: How long to wait for a worker that can run a job if there is none, seconds.
        measure: Called with the seconds from a job's submission to its answer, and the answer.

    Raises:
        ClusterError: No scheduler answers, or there are no workers.
    """

    def __init__(
        self,
        scheduler: str,
        certs: Path | None = None,
        *,
        timeout: float = 3600,
        memory: int | None = None,
        patience: float = 60,
        measure: Callable[[float, Answer], None] = lambda seconds, answer: None,
    ) -> None:
        self._scheduler, self._timeout, self._memory = scheduler, timeout, memory
        self._measure = measure
        self._client: Any = connect(scheduler, certs)
        self._listeners: dict[str, Callable[[Message], None]] = {}
        self._workers = Slots(patience)
        self._seen: dict[str, Slot] = {}
        self._ended = threading.Event()
        self._look_around()
        self._client.subscribe_topic(TOPIC, self._receive)
        threading.Thread(target=self._keep_looking, daemon=True).start()

    @property
    def slots(self) -> int:
        """Number of jobs that may be submitted at once; more than workers, since more may join."""
        return min(_MOST, 8 + 2 * len(self._workers.known()))

    @property
    def exports_at_once(self) -> int:
        """1: models run at the same time on different workers, each with its own measurements."""
        return 1

    @property
    def models_at_once(self) -> int:
        """As many as jobs."""
        return self.slots

    def working(self) -> AbstractContextManager[None]:
        """Returns at once: engines are measured on other machines."""
        return nullcontext()

    def workers(self) -> list[Slot]:
        """Returns the workers that can get jobs."""
        return sorted(self._workers.known().values(), key=lambda slot: slot.name)

    def left_out(self) -> list[Slot]:
        """Returns the workers that get no jobs because they run another version of the farm."""
        return [slot for slot in self._seen.values() if not slot.resources]

    def runs_on(self, archs: Sequence[Arch], toolchain: Toolchain) -> Arch | None:
        """Returns the first of an engine's architectures on which a worker can run it."""
        return offers.runs_on(self.workers(), archs, toolchain)

    def default_archs(self) -> list[Arch]:
        """Returns the default of ``GPU=``: the workers' GPUs, or the CPU if they have none."""
        return offers.default_archs(self.workers())

    def choose_toolchains(
        self, archs: Sequence[Arch], line: RuntimeLine | None
    ) -> dict[Arch, Toolchain]:
        """Selects each architecture's toolchain; see :mod:`~builders.executors.dask.offers`.

        Raises:
            ClusterError: No worker builds for one of the architectures.
        """
        return offers.choose_toolchains(self.workers(), archs, line)

    def run(self, job: Job, folder: Path, report: Report) -> Outcome:
        """Runs a job; see :class:`~builders.executors.base.Executor`."""
        write_file(folder / JOB, job.model_dump_json(indent=1).encode())
        needs = needs_of(job, self.runs_on)
        died_on: list[str] = []
        while len(died_on) < KILLS:
            address, slot = self._workers.take(needs)
            attempt = _Attempt(self._client, address, slot, folder, report)
            self._listeners[attempt.id] = attempt.receive
            begun = time.perf_counter()
            try:
                answer = attempt.run(self._task(attempt.id, job), needs, self._still_there)
            except ClusterError as error:
                self._lost(error)
                raise
            finally:
                self._listeners.pop(attempt.id, None)
                self._workers.give(address)
            if answer is not None:
                self._measure(time.perf_counter() - begun, answer)
                return _lay_out(answer, job, folder)
            self._workers.lose(address)
            if attempt.begun:
                died_on.append(slot.name)
                _append_log(folder, f"[{slot.name} died while running this job]\n")
        write_file(folder / QUARANTINE, json.dumps({"died_on": died_on}).encode())
        raise QuarantineError(
            f"quarantined: {KILLS} workers died while running it ({', '.join(died_on)})",
            hint=last_words(folder),
        )

    def stop(self) -> None:
        """Cancels running jobs and disconnects from the cluster."""
        if not self._ended.is_set():
            self._ended.set()
            self._workers.stop(ClusterError("stopped"))
            self._client.close(timeout=5)

    def _task(self, name: str, job: Job) -> str:
        task = Task(id=name, job=job.model_dump_json(), timeout=self._timeout, memory=self._memory)
        return task.model_dump_json()

    def _still_there(self, address: str) -> bool:
        return address in self._workers.known()

    def _receive(self, event: tuple[float, str]) -> None:
        if (message := _parse_event(event)) is not None and (
            listener := self._listeners.get(message.task)
        ):
            listener(message)

    def _keep_looking(self) -> None:
        while not self._ended.wait(_REFRESH):
            try:
                self._look_around()
            except ClusterError as error:
                self._lost(error)
                return

    def _look_around(self) -> None:
        """Updates the list of workers and fetches the slots of new ones."""
        try:
            info = self._client.scheduler_info(n_workers=-1)["workers"]
            if new := [address for address in info if address not in self._seen]:
                slots = self._client.run(describe_slot, workers=new, on_error="ignore")
                self._seen |= {address: _read_slot(text) for address, text in slots.items()}
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unreachable() from error
        self._seen = {address: slot for address, slot in self._seen.items() if address in info}
        self._workers.update({a: slot for a, slot in self._seen.items() if slot.resources})

    def _unreachable(self) -> ClusterError:
        return ClusterError(
            f"lost the scheduler {self._scheduler}, and the running jobs with it",
            hint="published results are kept; start the cluster and run the same command again "
            "to do the remaining jobs",
        )

    def _lost(self, error: ClusterError) -> None:
        self._workers.stop(error)


class _Attempt:
    """One attempt to run a job on one worker."""

    def __init__(self, client: Any, address: str, slot: Slot, folder: Path, report: Report) -> None:
        self.id = f"job-{uuid.uuid4().hex}"
        self.begun = False
        self._client, self._address, self._slot = client, address, slot
        self._folder, self._report = folder, report

    def receive(self, message: Message) -> None:
        """Reports the progress in a message and appends its text to the log."""
        self.begun = True
        if message.event is not None and (event := Event.from_line(message.event)):
            self._report(event)
        if message.log is not None:
            _append_log(self._folder, message.log)

    def run(
        self, task: str, needs: frozenset[str], still_there: Callable[[str], bool]
    ) -> Answer | None:
        """Returns the worker's answer, None if the worker died or left.

        Raises:
            ClusterError: The connection to the scheduler was lost.
            NotRunError: The worker can't run jobs of this farm.
        """
        from distributed import CancelledError, KilledWorker

        future = self._client.submit(
            run_task,
            task,
            key=self.id,
            workers=[self._address],
            resources=dict.fromkeys(needs, 1),
            pure=False,
        )
        try:
            return self._wait(future, still_there)
        except KilledWorker:
            self.begun = True  # even if its message did not arrive
            return None
        except CancelledError as error:
            raise ClusterError(
                "lost the connection to the scheduler, and the running jobs with it",
                hint="published results are kept; start the cluster and run the same command "
                "again to do the remaining jobs",
            ) from error
        finally:
            _forget(future)

    def _wait(self, future: Any, still_there: Callable[[str], bool]) -> Answer | None:
        # Not result(timeout): the client gathers for several threads at once, and a timeout in
        # one of them would cancel all.
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        while not done.wait(_REFRESH):
            if not still_there(self._address):
                return None
        try:
            return Answer.model_validate_json(future.result(timeout=_GATHER))
        except TimeoutError:  # the worker died before it sent the answer
            return None
        except ValidationError as error:
            raise NotRunError(
                f"{self._slot.name} returned a malformed answer: {_first(error)}",
                hint="farm and worker must run the same version; if they do, the worker is broken "
                "or was tampered with",
            ) from error
        except ImportError as error:
            raise NotRunError(
                f"{self._slot.name} can't run jobs: {cause_of(error)}",
                hint="it needs this project's checkout and pip install '.[worker,dask]'",
            ) from error


def _forget(future: Any) -> None:
    """Cancels a task whose answer is no longer needed, or releases a finished one.

    Cancels in a separate thread, because a client that is being closed never returns.
    """
    if future.done():
        future.release()
        return

    def cancel() -> None:
        with suppress(Exception):  # of any class if the scheduler is gone
            future.cancel(reason="done")

    thread = threading.Thread(target=cancel, daemon=True)
    thread.start()
    thread.join(_FORGET)


def _parse_event(event: object) -> Message | None:
    """Returns the message in an event of the topic, None if it is malformed.

    Any worker of the cluster can send anything, and an exception here would end the client's
    listener for all jobs.
    """
    try:
        # It rejects lone surrogates, which can't be written to a log.
        return Message.model_validate_json(event[1])  # type: ignore[index]
    except (TypeError, IndexError, KeyError, ValueError):
        return None


def _read_slot(text: str) -> Slot:
    """Parses the description of a worker.

    A worker of another program or another version of the farm has no resources, so it gets no
    jobs: versions do not understand each other's jobs.
    """
    try:
        slot = Slot.model_validate_json(text)
    except ValidationError:
        return Slot(name="?", host="?", resources=frozenset(), version="of something else")
    if slot.version != __version__:
        return slot.model_copy(update={"resources": frozenset()})
    return slot


def _lay_out(answer: Answer, job: Job, folder: Path) -> Outcome:
    """Recreates the output folder of a worker's process from its answer and the store.

    Raises:
        JobError: The job failed, or the answer does not belong to this job.
    """
    if answer.log:
        write_file(folder / LOG, answer.log[-2 * LOG_LIMIT :].encode(errors="replace"))
    if answer.result is None:
        kind = NotRunError if answer.not_run else JobError
        raise kind(answer.error or "it failed without a message", hint=answer.hint)
    data = answer.result.encode(errors="replace")
    check_size(RESULT, "result", len(data))
    result = read_result(data, job)
    if isinstance(result, Failure):
        raise JobError(result.message, hint=result.hint)
    named = named_files(result)
    if answer.files.keys() != named.keys():
        raise JobError(
            "the worker's answer and its result name different files: "
            + ", ".join(sorted(answer.files.keys() ^ named.keys()))
        )
    for name, blob in answer.files.items():
        check_size(name, named[name], blob.size)
    repository = Repository(open_store(job.store))
    for name, blob in answer.files.items():
        repository.blobs.fetch(blob, folder / name)
    check_formats(named, folder)
    check_made(job, result, folder)
    write_file(folder / RESULT, data)
    return Outcome(result=result, folder=folder)


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part)[:40] for part in first['loc'])}: {first['msg']}"


def _append_log(folder: Path, words: str) -> None:
    """Appends to a job's log, up to the size limit of logs."""
    with (folder / LOG).open("a") as log:
        log.write(words[: max(0, LIMITS["log"] - log.tell())])
