"""Deadlines for servers' answers, and for bodies from S3.

The timeouts of botocore and urllib3 are those of each ``recv``, so a server that sends a byte every
few seconds is waited for without end. Here another thread waits; after a deadline it is left
behind, and ends when its connection does.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from zoo.stores.lock_owner import to_stderr
from zoo.util.errors import RepositoryError

R = TypeVar("R")

ANSWER = 300.0
"""Seconds in which an answer's headers must come, and the whole of one without a stream; the
libraries' own attempts with their timeouts take less, or little more."""

QUIET = 10.0
"""Seconds after which somebody who waits for an answer is told so."""

SLOWEST = 1024
"""Bytes a second at which a body must at least be sent to the server."""

WINDOW = 30.0
"""Seconds in which a server must send :data:`PIECE` bytes of a body."""

PIECE = 16 << 10
_HINT = (
    "it is overloaded, or holds the connection open on purpose: try again later, or use a mirror"
)


class Body(Protocol):
    """A response's body, as botocore has it."""

    def read(self, amt: int | None = None) -> bytes:
        """Returns so many bytes, fewer only at the end."""
        ...

    def close(self) -> None:
        """Closes the connection."""
        ...


def answered(work: Callable[[], R], url: str, *, sent: int = 0) -> R:
    """Waits for an answer.

    Args:
        work: Sends the request, and returns the answer.
        url: URL of the store.
        sent: Bytes of the request's body.

    Raises:
        RepositoryError: It did not come in time.
    """
    deadline = ANSWER + sent / SLOWEST
    quiet = deadline if sent else min(QUIET, deadline)  # what is sent has a progress bar
    results: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put((True, work()))
        except BaseException as error:  # raised in the caller's thread
            results.put((False, error))

    threading.Thread(target=run, name="patience", daemon=True).start()
    try:
        try:
            good, result = results.get(timeout=quiet)
        except queue.Empty:
            if quiet < deadline:
                to_stderr(f"waiting for {url}: no answer for {quiet:.0f} s")
            good, result = results.get(timeout=deadline - quiet)
    except queue.Empty:
        raise RepositoryError(
            f"{url}: the server did not finish its answer in {deadline:.0f} s", hint=_HINT
        ) from None
    if not good:
        raise result
    answer: R = result
    return answer


def whole_body(body: Body, url: str, key: str, most: int | None = None) -> bytes:
    """Returns the content of a body.

    Args:
        body: The body; closed when it has been read, or when a late read of it ends.
        url: URL of the store.
        key: Key of the object.
        most: Bytes after which reading ends.

    Raises:
        RepositoryError: Fewer than :data:`PIECE` bytes came in :data:`WINDOW` seconds.
    """
    pieces: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            for piece in _pieces(body, most):
                pieces.put(piece)
            pieces.put(b"")
        except BaseException as error:  # raised in the caller's thread
            pieces.put(error)
        finally:
            let_go(body)  # here, since closing waits for what reads

    threading.Thread(target=run, name="patience", daemon=True).start()
    data: list[bytes] = []
    while True:
        try:
            piece = pieces.get(timeout=WINDOW)
        except queue.Empty:
            raise RepositoryError(
                f"{url}: the server sent less than {PIECE:,} bytes of {key} in {WINDOW:.0f} s",
                hint=_HINT,
            ) from None
        if isinstance(piece, BaseException):
            raise piece
        if not piece:
            return b"".join(data)
        data.append(piece)


def _pieces(body: Body, most: int | None) -> Iterator[bytes]:
    left = most
    while left is None or left > 0:
        piece = body.read(PIECE if left is None else min(PIECE, left))
        if not piece:
            return
        yield piece
        left = None if left is None else left - len(piece)


def let_go(body: Body) -> None:
    """Closes a body, whatever became of its connection."""
    with suppress(Exception):  # botocore and urllib3 raise errors of their own
        body.close()
