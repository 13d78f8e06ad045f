"""Owner: who holds a lock, and how others wait for it."""

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

PATIENCE = 600.0
"""Seconds that a writer waits for another."""

_QUIET = 3.0
"""Seconds that it waits without a word."""

Say = Callable[[str], None]
"""Takes what the user should know while nothing else happens."""


def to_stderr(text: str) -> None:
    """Tells the user on standard error."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process that holds a lock.

    Attributes:
        user: Its name.
        host: Of its machine.
        pid: Of the process there.
        since: When it took the lock, by that machine's clock, ISO 8601, UTC.
    """

    user: str
    host: str
    pid: int
    since: str

    @classmethod
    def this_process(cls) -> Owner:
        """Returns this process, now."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container's user without a name
            user = str(os.getuid())
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(user=user, host=platform.node(), pid=os.getpid(), since=now)

    @classmethod
    def parse(cls, data: bytes) -> Owner | None:
        """Reads what :meth:`to_json` wrote, None where it is something else."""
        try:
            found = json.loads(data)
            return cls(**{field.name: found[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError):
            return None

    def to_json(self) -> bytes:
        """Returns it as it lies in a lock."""
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
    freed: str = "it goes with that process",
) -> None:
    """Waits until a lock is had.

    Args:
        attempt: Tries to take it; returns None when it did, else who holds it.
        what: The lock, in words.
        say: Is told once, when it takes a while.
        patience: Seconds after which to give up.
        pause: Seconds between attempts, at most.
        freed: How the lock of a writer that is gone comes free.

    Raises:
        RepositoryError: Somebody held it all the time.
    """
    begun, told, step = time.monotonic(), False, min(0.05, pause)
    while (holder := attempt()) is not None:
        waited = time.monotonic() - begun
        if waited >= patience:
            raise RepositoryError(
                f"{what} is held by {holder}; {waited:.0f} s were not enough",
                hint=f"let that finish, then run this again; {freed}",
            )
        if waited >= _QUIET and not told:
            say(f"waiting for {holder}, who holds {what}")
            told = True
        time.sleep(step)
        step = min(2 * step, pause)
