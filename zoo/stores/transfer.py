"""Transfer: large objects in parts, several at a time, in constant memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from zoo.stores.base import Progress
from zoo.util.errors import RepositoryError

T = TypeVar("T")
R = TypeVar("R")

PART = 8 << 20
"""Bytes of a part. S3 wants 5 MiB at least."""

WORKERS = 8
"""Parts that are under way at once; twice as many may be in memory, waiting for their turn."""

ATTEMPTS = 6
"""How often a part is asked for when its answer breaks off."""


PAUSE = 0.5
"""Seconds before the second try; twice as many before each that follows."""


def spans(start: int, end: int, part: int = PART) -> Iterator[tuple[int, int]]:
    """Yields the parts of ``start`` to ``end``, bytes, each as its first byte and its length."""
    for first in range(start, end, part):
        yield first, min(part, end - first)


def in_order(work: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """Works on several items at once and yields the results in order.

    It never runs further ahead of who takes the results than :data:`WORKERS` items twice. Closing
    it, or an error, starts no more.
    """
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="transfer")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            if len(waiting) == 2 * WORKERS:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def again(work: Callable[[], R], broken: tuple[type[Exception], ...]) -> R:
    """Repeats what breaks off midway, with pauses that grow.

    Args:
        work: What to do.
        broken: Errors after which it is worth another try.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return work()
        except broken:
            time.sleep(PAUSE * 2**attempt)
    return work()


def append_parts(
    file: BinaryIO,
    end: int,
    read: Callable[[int, int], bytes],
    progress: Progress | None,
) -> None:
    """Appends to a file what an object has beyond the file's end.

    Args:
        file: The beginning of the object, open for appending.
        end: The object's length, bytes.
        read: Returns the part that begins at a byte and has so many bytes.
        progress: Is told of bytes as they are appended.
    """
    parts = in_order(lambda span: read(*span), spans(file.tell(), end))
    try:
        for data in parts:
            file.write(data)
            if progress is not None:
                progress(len(data))
    finally:
        parts.close()


@contextmanager
def appending(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to append to.

    Raises:
        RepositoryError: The file can't be written: the disk is full, or not for this user.
    """
    try:
        with path.open("ab") as file:
            yield file
    except OSError as error:
        raise RepositoryError(
            f"{path}: can't be written: {error.strerror or error}",
            hint="check the free space and the permissions of that directory",
        ) from error


def present(path: Path) -> int:
    """Returns the length of a file, 0 when there is none."""
    return path.stat().st_size if path.exists() else 0
