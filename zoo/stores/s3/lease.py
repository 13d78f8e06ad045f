"""A lease: a lock built from conditional writes, because S3 has no locks.

The lock is an object that names its holder. Acquiring, renewing, taking over and releasing are
conditional on the state that was read before, so only one of several writers succeeds. Expiry is
judged by the server's clock only, because writers' clocks may be wrong. The holder measures the
time since its last renewal and stops writing once another writer may have taken over, so a machine
that wakes from sleep does no harm.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from zoo.stores.lock_owner import PATIENCE, Owner, Say, to_stderr, wait_for
from zoo.util.errors import RepositoryError
from zoo.util.loading import parse_json

LEASE = 60.0
"""Seconds after which a holder that has not renewed is taken to be gone."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # it counts on while asleep


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """An object as it was at a moment.

    Attributes:
        data: Its bytes.
        tag: Changes whenever it does.
        age: Seconds since it was written, by the server's clock.
    """

    data: bytes
    tag: str
    age: float


class TaggedObjects(Protocol):
    """The store operations that a lease uses."""

    @property
    def url(self) -> str:
        """URL of the store."""
        ...

    def read_tagged(self, key: str) -> Tagged | None:
        """Returns an object, or None if it does not exist."""
        ...

    def write_tagged(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Writes the object if its tag matches (None: if absent); returns the new tag or None."""
        ...


class Lease:
    """A lock that expires unless it is renewed.

    Args:
        objects: Store of the lock.
        key: Key of the lock's object.
        seconds: Seconds without renewal after which the lease expires; all writers must agree.
        patience: Seconds to wait for another holder.
        say: Called with a message when waiting.
    """

    def __init__(
        self,
        objects: TaggedObjects,
        key: str,
        *,
        seconds: float = LEASE,
        patience: float = PATIENCE,
        say: Say = to_stderr,
    ) -> None:
        self._objects, self._key = objects, key
        self._seconds, self._patience, self._say = seconds, patience, say
        self._what = f"{objects.url}: the lock {key}"
        self._tag = ""
        self._renewed = 0.0
        self._lost = False
        self._stop = threading.Event()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Acquires the lease, renews it in a thread, and releases it on exit.

        Raises:
            RepositoryError: Another writer does not release it in time, or the lease was lost.
        """
        freed = f"the lock of a dead process is released after {self._seconds:.0f} s"
        self._owner, self._nonce = Owner.this_process(), uuid.uuid4().hex
        wait_for(
            self._take, self._what, say=self._say, patience=self._patience,
            pause=min(2.0, self._seconds / 4), freed=freed,
        )  # fmt: skip
        thread = threading.Thread(target=self._keep, name=self._key, daemon=True)
        thread.start()
        try:
            yield
            self.must_hold()
        finally:
            self._stop.set()
            thread.join()
            with suppress(RepositoryError):  # it expires anyway
                self._objects.write_tagged(self._key, self._body(released=True), self._tag)

    def must_hold(self) -> None:
        """Checks that the lease can't have expired.

        Raises:
            RepositoryError: Another writer may have taken over.
        """
        silent = time.clock_gettime(_CLOCK) - self._renewed
        if self._lost or silent > self._seconds:
            raise RepositoryError(
                f"{self._what} was lost: it could not be renewed for {silent:.0f} s",
                hint="another writer may have taken over, so writing stopped; run this again to "
                "resume",
            )

    def _take(self) -> str | None:
        """Tries to acquire the lease; returns None on success, else the holder."""
        begun = time.clock_gettime(_CLOCK)
        found = self._objects.read_tagged(self._key)
        if found is not None and not self._is_free(found):
            return str(Owner.parse(found.data) or "somebody")
        tag = found.tag if found else None
        written = self._objects.write_tagged(self._key, self._body(), tag)
        if written is None:
            return "somebody who was faster"
        self._tag, self._renewed = written, begun
        return None

    def _is_free(self, found: Tagged) -> bool:
        try:
            released = parse_json(found.data).get("released") is True
        except (ValueError, AttributeError):
            released = False
        return released or found.age > self._seconds + 1  # the server's times are whole seconds

    def _keep(self) -> None:
        """Renews it until it is given back, or lost."""
        while not self._stop.wait(self._seconds / 4):
            begun = time.clock_gettime(_CLOCK)
            try:
                written = self._objects.write_tagged(self._key, self._body(), self._tag)
            except RepositoryError:  # the server may be back before the lease ends
                continue
            if written is None:
                self._lost = True
                return
            self._tag, self._renewed = written, begun

    def _body(self, *, released: bool = False) -> bytes:
        """Returns the object's bytes: no two are alike, so that each has its own tag."""
        body = parse_json(self._owner.to_json())
        body |= {"nonce": self._nonce, "write": uuid.uuid4().hex, "released": released}
        return json.dumps(body).encode()
