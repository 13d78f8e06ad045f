"""The process that holds a lock, and waiting for it."""

from __future__ import annotations

import getpass
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone

from zoo.util.errors import RepositoryError
from zoo.util.loading import parse_json
from zoo.util.terminal import harmless

PATIENCE = 600.0
"""Seconds to wait for a lock that another writer holds."""

_QUIET = 3.0
"""Seconds to wait before telling the user."""

Say = Callable[[str], None]
"""Shows a message to the user."""


def to_stderr(text: str) -> None:
    """Writes a message to standard error."""
    print(harmless(text), file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process that holds a lock.

    Attributes:
        user: Name of the user who runs it.
        host: Name of the machine.
        pid: Process ID on that machine.
        since: When it took the lock, by that machine's clock; ISO 8601, UTC.
    """

    user: str
    host: str
    pid: int
    since: str

    @classmethod
    def this_process(cls) -> Owner:
        """Returns an owner for this process, holding the lock from now on."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container's user without a name
            user = str(os.getuid())
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(user=user, host=platform.node(), pid=os.getpid(), since=now)

    @classmethod
    def parse(cls, data: bytes) -> Owner | None:
        """Parses what :meth:`to_json` wrote; returns None for anything else."""
        try:
            values = parse_json(data)
            return cls(**{field.name: values[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError):
            return None

    def to_json(self) -> bytes:
        """Returns the content of a lock file."""
        return json.dumps(asdict(self)).encode()

    def __str__(self) -> str:
        return f"{self.user} on {self.host} (process {self.pid}, since {self.since})"


def wait_for(
    attempt: Callable[[], str | None],
    what: str,
    *,
    say: Say = to_stderr,
    patience: float = PATIENCE,
    pause: float = 1.0,
    freed: str = "the lock is released when that process ends",
) -> None:
    """Waits until a lock is acquired.

    Args:
        attempt: Tries to acquire it; returns None on success, otherwise who holds it.
        what: Description of the lock.
        say: Called once with a message if the wait is long.
        patience: Seconds after which to give up.
        pause: Longest time between attempts, seconds.
        freed: When the lock of a dead writer is released, for the hint.

    Raises:
        RepositoryError: It was still held after ``patience`` seconds.
    """
    start, told, step = time.monotonic(), False, min(0.05, pause)
    while (holder := attempt()) is not None:
        waited = time.monotonic() - start
        if waited >= patience:
            raise RepositoryError(
                f"{what} is still held by {holder} after {waited:.0f} s",
                hint=f"wait for it to finish, then run this again; {freed}",
            )
        if waited >= _QUIET and not told:
            say(f"waiting for {holder}, who holds {what}")
            told = True
        time.sleep(step)
        step = min(2 * step, pause)
