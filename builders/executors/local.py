"""Runs jobs on this machine, each in its own process."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from builders.executors.base import Outcome, ThisMachine
from builders.executors.quiet import Quiet
from builders.executors.warm import Copies, Worker
from builders.executors.workers import Workers, kill
from builders.jobs import output_files
from builders.jobs.made_engines import check_made
from builders.jobs.messages import Failure, Job, engine_job
from builders.jobs.progress import Event, Report
from builders.jobs.results import read_result
from builders.toolchains.worker_environment import worker_environment
from zoo.schema.runtimes import has_header
from zoo.util.causes import plain
from zoo.util.errors import JobError, NotRunError, UsageError

_PROC = Path("/proc")
_GIB = 2**30

_REFERENCE, _APART = "ZOO_FARM_REFERENCE", "ZOO_FARM_SPEED_APART"
"""Environment variables of workers: :mod:`builders.worker.reference` and ``execute``."""

_WAIT = "OMP_WAIT_POLICY"

_MEMORY_IS_KEPT = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "hugetlb": 1, "mmap_max": 0, "top_pad": 64 * 2**20, "trim_threshold": 2**40,
    }.items()
)  # fmt: skip
"""Has glibc keep freed memory, in large pages. Each layer of a network needs as much as the last,
and the system would clear and map it anew each time."""

_MODELS = 2  # one is measured or published while another is built

_SPEED = (sys.executable, "-m", "builders.worker.speed")


class LocalExecutor(ThisMachine):
    """Runs each job in its own process, so that a crash of native code fails only that job.

    The worker leads its own session. It is therefore ended together with everything it started,
    and Ctrl-C reaches only the farm, which then ends the worker.

    Args:
        timeout: Seconds that a job may take.
        command: Command of the worker; job file and output directory are appended.
        build_command: Command of the worker for builds and verifications, which need the runtime
            but not torch, so another Python may run it. The same as ``command`` if None.
        memory: Resident memory in bytes that a worker and its child processes may use together;
            None for no limit. (``RLIMIT_AS`` does not work: CUDA reserves more address space than
            there is memory.)
        look: Called regularly while a worker runs; a returned text is the reason to stop it.
        around: Context manager of the folder that the worker writes to; entered before the worker
            starts and left when it has ended, before its outputs are read.
        parses: Whether to parse the models that it made. On a machine of a cluster the farm does,
            which trusts no machine of a cluster.
        exports_at_once: Number of exports that may run at once.
        warm: Whether exports, and the measuring of CPU engines, run in copies of processes that
            have imported PyTorch, instead of ``command``.

    Raises:
        UsageError: There is a memory limit, but this system has no ``/proc``.
    """

    def __init__(
        self,
        timeout: float = 3600,
        command: tuple[str, ...] = (sys.executable, "-m", "builders.worker"),
        build_command: tuple[str, ...] | None = None,
        *,
        memory: int | None = None,
        look: Callable[[], str | None] = lambda: None,
        around: Callable[[Path], AbstractContextManager[None]] = lambda work: nullcontext(),
        parses: bool = True,
        exports_at_once: int = 1,
        warm: bool = False,
    ) -> None:
        if memory is not None and not (_PROC / "self" / "stat").exists():
            raise UsageError("a memory limit needs /proc", hint="leave MEMORY= (--memory) out")
        self._timeout = timeout
        self._command = command
        self._build_command = build_command or command
        self._memory = memory
        self._look = look
        self._around = around
        self._parses = parses
        self.exports_at_once = exports_at_once
        self.models_at_once = min(_MODELS, exports_at_once)
        self._is_warm = warm
        self._quiet = Quiet()
        self._workers = Workers(timeout, warm=warm)

    def run(self, job: Job, folder: Path, report: Report) -> Outcome:
        """Runs a job; see :class:`~builders.executors.base.Executor`."""
        work = output_files.make_work_folder(folder.resolve(), job.model_dump_json(indent=1))
        with self._around(work):
            status, stopped = self._run(job, work, report)
        outcome = _outcome(job, status, stopped, folder)
        if self._parses:
            check_made(job, outcome.result, folder)
        return outcome

    def _run(
        self, job: Job, work: Path, report: Report
    ) -> tuple[int, tuple[str, str | None] | None]:
        """Runs the worker; returns its exit status and, if stopped, the reason and a hint."""
        if engine_job(job) is None:
            return self._export(job, work, report)
        environment = worker_environment(job.store, weights=False)
        if self._memory is not None:
            # PyTorch's memory must not end a job whose engine needs less.
            environment[_REFERENCE] = "0"
        if not (self._measures_apart(environment) and _is_timed_on_the_cpu(job)):
            with self._quiet.alone():
                return self._worker(self._build_command, environment, work, report)
        self._workers.warm(Copies.SPEEDS, environment)  # loads while the engine is built
        # Beside another engine: a thread that waits for others must not take a core from it.
        apart = {_WAIT: "PASSIVE", **environment, _APART: "1"}
        status, stopped = self._worker(self._build_command, apart, work, report)
        if status or stopped or not (work / output_files.VERIFIED).exists():
            return status, stopped
        with self._quiet.alone():
            return self._worker(_SPEED, environment, work, report, Copies.SPEEDS)

    def _export(
        self, job: Job, work: Path, report: Report
    ) -> tuple[int, tuple[str, str | None] | None]:
        plain = worker_environment(job.store, weights=False)
        if self._measures_apart(plain):
            self._workers.warm(Copies.SPEEDS, plain)  # loads while the exporter does
        environment = worker_environment(job.store, weights=True)
        environment.setdefault("GLIBC_TUNABLES", _MEMORY_IS_KEPT)
        if self.exports_at_once > 1:
            # A thread that waits for others must not take a core from another export.
            environment.setdefault(_WAIT, "PASSIVE")
        return self._worker(self._command, environment, work, report, Copies.EXPORTS)

    def _measures_apart(self, environment: Mapping[str, str]) -> bool:
        """Whether another process measures the speed of engines than the one that builds them."""
        is_own = self._build_command == self._command  # another Python may have another runtime
        return self._is_warm and is_own and environment.get(_REFERENCE) != "0"

    def working(self) -> AbstractContextManager[None]:
        """Keeps engines from being measured meanwhile."""
        return self._quiet.working()

    def _worker(
        self,
        command: tuple[str, ...],
        environment: Mapping[str, str],
        work: Path,
        report: Report,
        copies: Copies | None = None,
    ) -> tuple[int, tuple[str, str | None] | None]:
        with (work / output_files.LOG).open("ab") as log:
            process = self._workers.start(command, environment, work, log, copies=copies)
        watch = _Watch(process, self._timeout, self._memory, self._look)
        watch.start()
        try:
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    if event := Event.from_line(line):
                        report(event)
            process.wait()
        finally:
            kill(process)  # after Ctrl-C
            status = process.wait()
            watch.end()
            self._workers.has_ended(process)
        self._workers.check()  # a job that was stopped has not failed
        return status, watch.stopped

    def stop(self) -> None:
        """Ends the workers that run; no job runs afterwards."""
        self._workers.stop()


def _is_timed_on_the_cpu(job: Job) -> bool:
    """Whether a job measures the speed of an engine for CPUs."""
    engine = engine_job(job)
    if engine is None or engine.verification is None or not engine.verification.benchmark:
        return False
    return not has_header(engine.inputs.toolchain.kind)


class _Watch(threading.Thread):
    """Ends a worker that exceeds a limit, and child processes that outlive a worker.

    Attributes:
        stopped: Why the worker was stopped, and a hint; None if it was not.
    """

    _SECONDS = 0.2  # between two checks

    def __init__(
        self,
        process: Worker,
        timeout: float,
        memory: int | None,
        look: Callable[[], str | None],
    ) -> None:
        super().__init__(daemon=True)
        self._look = look
        self._process = process
        self._timeout = timeout
        self._memory = memory
        self._over = threading.Event()
        self.stopped: tuple[str, str | None] | None = None

    def end(self) -> None:
        """Stops watching a worker that has ended."""
        self._over.set()
        self.join()

    def run(self) -> None:
        """Watches until the worker has ended."""
        deadline = time.monotonic() + self._timeout
        before = 0
        while self._process.poll() is None:
            if time.monotonic() >= deadline:
                self.stopped = (
                    f"the worker was stopped after {self._timeout:.0f} s",
                    "TIMEOUT= (--timeout) allows a job more seconds",
                )
                break
            if self._memory is not None:
                used = resident_memory(self._process.pid)
                # Twice in a row: a forked child counts its parent's pages until it calls exec.
                if min(used, before) > self._memory:
                    self.stopped = (
                        f"the worker was stopped: it had {used / _GIB:.2f} GiB of memory, the "
                        f"limit is {self._memory / _GIB:.2f} GiB",
                        "MEMORY= (--memory) allows a job more GiB",
                    )
                    break
                before = used
            if reason := self._look():
                self.stopped = (f"the worker was stopped: {reason}", None)
                break
            self._over.wait(self._SECONDS)
        kill(self._process)


def parse_limit(variable: str, text: str) -> float | None:
    """Parses a limit given as a variable of ``make``.

    Args:
        variable: Its name; the option has the same name in lower case.
        text: Its value.

    Returns:
        The number, None if the text is empty.

    Raises:
        UsageError: It is not a number above 0.
    """
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UsageError(
            f"{variable}={text} (--{variable.lower()}) is not a number above 0",
            hint=f"for example {variable}=2.5; leave it out for the default",
        )
    return number


def resident_memory(session: int) -> int:
    """Returns the resident memory in bytes of all processes of a session, from ``/proc``."""
    pages = 0
    for stat in _PROC.glob("[0-9]*/stat"):
        try:
            fields = stat.read_bytes().rpartition(b")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session:
            pages += int(fields[21])
    return pages * os.sysconf("SC_PAGE_SIZE")


_NOT_THE_ENGINE = ("RepositoryError", "MissingPackageError")
"""Errors of a worker that are not caused by the engine that it builds."""


def _outcome(
    job: Job, status: int, stopped: tuple[str, str | None] | None, folder: Path
) -> Outcome:
    """Takes over a worker's outputs.

    Raises:
        JobError: The job failed, there is no result (the worker crashed or was stopped), or the
            outputs can't be used.
    """
    if (data := output_files.collect_logs(folder)) is not None:
        result = read_result(data, job)
        if isinstance(result, Failure):
            kind = NotRunError if result.error in _NOT_THE_ENGINE else JobError
            raise kind(result.message, hint=result.hint)
        output_files.collect_files(result, folder)
        return Outcome(result=result, folder=folder)
    end = last_words(folder)
    if stopped:
        reason, remedy = stopped
        raise JobError(reason, hint=f"{end}; {remedy}" if remedy else end)
    if name := _signal(status):
        cause = "; was the machine out of memory?" if name == "SIGKILL" else ""
        raise JobError(f"the worker was killed by {name}{cause}", hint=end)
    raise JobError(f"the worker exited with status {status} and no result", hint=end)


def _signal(status: int) -> str | None:
    """Returns the name of the signal of an exit status, or a shell's 128 + n; None for none."""
    number = -status if status < 0 else status - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


def last_words(folder: Path) -> str:
    """Returns the last lines of a job's log, for an error message."""
    lines = output_files.read_log_end(folder).strip().splitlines()
    lines = list(filter(None, map(plain, lines)))[-5:]
    return "end of its log: " + " | ".join(lines) if lines else "its log is empty"
