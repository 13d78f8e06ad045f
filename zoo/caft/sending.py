"""Sends a part to a worker of a cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from zoo.caft.file_read import FileRead
from zoo.caft.packing import entry_of
from zoo.caft.parts import Part
from zoo.caft.wire import InFile, Request, Sent, Setup, message
from zoo.caft.worker_kinds import Worker
from zoo.caft.workers import Workforce
from zoo.util.digest import sha256_bytes

_FORGET = 5.0  # seconds to wait for the scheduler to cancel a task


@dataclass(kw_only=True, eq=False)
class Attempt:
    """A part that was given to a worker.

    Attributes:
        part: The part.
        worker: The worker.
        key: Dask's name of the task.
        begun: When it was given, or the part before it ended.
        future: Dask's future of the answer, once it was sent.
        error: Why it could not be sent.
        entries: What was sent.
        answered: Whether the worker finished it, though its answer may be lost with the worker.
        spot: Place of a file that was read here too, and its digest.
        dropped: Whether its answer is no longer wanted.
    """

    part: Part
    worker: Worker
    key: str
    begun: float = field(default_factory=time.monotonic)
    future: Any = None
    error: BaseException | None = None
    entries: list[InFile | Sent] = field(default_factory=list)
    spot: tuple[int, str] | None = None
    dropped: bool = False
    answered: bool = False

    def drop(self) -> None:
        """Cancels it; its answer will be ignored."""
        self.dropped = True
        future, self.future = self.future, None
        if future is None:
            return

        def cancel() -> None:
            with suppress(Exception):  # of any class if the scheduler is gone
                future.cancel(reason="done")

        # In a thread, because a client that is being closed never returns.
        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        thread.join(_FORGET)


def send(
    attempt: Attempt, setup: Setup, workforce: Workforce, done: Callable[[Attempt], None]
) -> None:
    """Sends an attempt's part; ``done`` is called with the attempt when there is an answer.

    Args:
        attempt: The attempt.
        setup: What all parts have in common.
        workforce: The workers.
        done: Called in another thread, also if the part could not be sent.
    """
    try:
        if attempt.dropped:
            return
        sends = attempt.worker.shares_files is False
        pieces = []
        for packed in attempt.part.packed:
            entry, data = entry_of(packed, send=sends)
            attempt.entries.append(entry)
            pieces.append(data)
        attempt.spot = _spot(attempt)
        request = message(Request(setup=setup, entries=tuple(attempt.entries)), pieces)
        attempt.future = workforce.submit(attempt.worker, attempt.key, request)

        def ended(future: Any) -> None:
            attempt.answered = future.status == "finished"
            done(attempt)

        attempt.future.add_done_callback(ended)
    except BaseException as error:  # the pass raises it
        attempt.error = error
        done(attempt)


def send_again(
    attempt: Attempt, places: tuple[int, ...], workforce: Workforce, *, all_of_them: bool
) -> None:
    """Has files of a part sent that a worker lacks or has otherwise.

    Args:
        attempt: What was asked.
        places: Places of the files.
        workforce: The workers.
        all_of_them: Whether these are all, so that the worker will be sent all files.
    """
    for place in places:
        attempt.part.packed[place].send = True
    if all_of_them:
        if attempt.worker.shares_files is None:
            workforce.say(
                f"{attempt.worker.name} can't read the files of the data set, so they are sent"
            )
        attempt.worker.shares_files = False


def _spot(attempt: Attempt) -> tuple[int, str] | None:
    """Returns the place and digest of the first file that the worker reads itself."""
    for place, entry in enumerate(attempt.entries):
        read = attempt.part.packed[place].sample.read
        if isinstance(entry, InFile) and isinstance(read, FileRead):
            with suppress(OSError):
                return place, sha256_bytes(read())
    return None
