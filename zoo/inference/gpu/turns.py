"""Has the threads of several processes take turns with a GPU's JPEG decoder.

nvJPEG keeps a core busy until a batch is decoded. Batches that are decoded at the same time share
the hardware, so that each takes longer, and as much longer of its core; who waits for a turn takes
none.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

if sys.platform == "linux":
    import fcntl


@contextmanager
def new() -> Iterator[int | None]:
    """Yields a descriptor for processes to inherit that share a GPU; None but on Linux."""
    if sys.platform != "linux":
        yield None
        return
    file = os.memfd_create("turns")
    try:
        yield file
    finally:
        os.close(file)


class Turns:
    """A lock, as a context manager; one for each process.

    The system frees it if the process dies.

    Args:
        file: What :func:`new` yielded, in the process that started this one; None if this process
            has the GPU for itself.
    """

    def __init__(self, file: int | None = None) -> None:
        self._file = file
        self._threads = threading.Lock()  # a lock of a file is that of a process
        self._taken: ExitStack | None = None

    def __enter__(self) -> None:
        with ExitStack() as taken:
            taken.enter_context(self._threads)
            if self._file is not None:
                fcntl.lockf(self._file, fcntl.LOCK_EX)
                taken.callback(fcntl.lockf, self._file, fcntl.LOCK_UN)
            self._taken = taken.pop_all()

    def __exit__(self, *exception: object) -> None:
        taken, self._taken = self._taken, None
        assert taken is not None
        taken.close()


_turns = Turns()


def mine() -> Turns:
    """Returns the turns of this process."""
    return _turns


def share(file: int | None) -> None:
    """Has this process take turns with others; called before it decodes.

    Args:
        file: See :class:`Turns`.
    """
    global _turns
    _turns = Turns(file)
