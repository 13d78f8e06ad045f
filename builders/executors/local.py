"""One process per job, on this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from builders.executors.base import Outcome
from builders.job import Failure, Job, parse_result
from builders.progress import Event, Report
from zoo.errors import JobError

_ROOT = Path(__file__).resolve().parents[2]


class LocalExecutor:
    """Runs each job in a process of its own: a crash of native code fails that job alone.

    Args:
        timeout: Seconds that a job may take.
        command: The worker, to which job file and output directory are added.
    """

    def __init__(
        self,
        timeout: float = 3600,
        command: tuple[str, ...] = (sys.executable, "-m", "builders.worker"),
    ) -> None:
        self._timeout = timeout
        self._command = command

    def run(self, job: Job, folder: Path, report: Report) -> Outcome:
        """Runs a job; see :class:`~builders.executors.base.Executor`."""
        job_file = folder / "job.json"
        job_file.write_text(job.model_dump_json(indent=1))
        process = subprocess.Popen(
            [*self._command, str(job_file.resolve()), str(folder.resolve())],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=_ROOT,
        )
        timer = threading.Timer(self._timeout, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if event := Event.from_line(line):
                    report(event)
            _, errors = process.communicate()
        finally:
            timed_out = not timer.is_alive()
            timer.cancel()
            if process.poll() is None:  # an interrupt from the keyboard
                process.kill()
                process.wait()
        return _outcome(process.returncode, timed_out, errors, folder, self._timeout)


def _outcome(status: int, timed_out: bool, errors: str, folder: Path, timeout: float) -> Outcome:
    result_file = folder / "result.json"
    if result_file.exists():
        result = parse_result.validate_json(result_file.read_bytes())
        if isinstance(result, Failure):
            raise JobError(result.message, hint=result.hint)
        return Outcome(result=result, folder=folder)
    if timed_out:
        raise JobError(f"the worker was stopped after {timeout:.0f} s", hint=_tail(folder, errors))
    if status < 0:
        name = signal.Signals(-status).name
        cause = "; was it out of memory?" if name == "SIGKILL" else ""
        raise JobError(f"the worker died of {name}{cause}", hint=_tail(folder, errors))
    raise JobError(f"the worker ended with {status} and no result", hint=_tail(folder, errors))


def _tail(folder: Path, errors: str) -> str:
    log = folder / "log.txt"
    text = (log.read_text(errors="replace") if log.exists() else "") + errors
    lines = text.strip().splitlines()[-5:]
    return "its last words: " + " | ".join(lines) if lines else "it said nothing"
