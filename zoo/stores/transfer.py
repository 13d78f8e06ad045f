"""Transfers large objects in parallel parts with constant memory."""

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
"""Part size in bytes. S3 requires at least 5 MiB."""

WORKERS = 8
"""Number of parts transferred in parallel; up to twice as many are in memory."""

ATTEMPTS = 6
"""Maximum number of attempts for a part."""


PAUSE = 0.5
"""Seconds before the second attempt; doubled before each further attempt."""


def spans(start: int, end: int, part: int = PART) -> Iterator[tuple[int, int]]:
    """Splits the byte range from ``start`` to ``end``; yields offset and length of each part."""
    for first in range(start, end, part):
        yield first, min(part, end - first)


def in_order(
    work: Callable[[T], R], items: Iterable[T], workers: int = WORKERS
) -> Generator[R, None, None]:
    """Processes items in parallel and yields the results in order.

    At most twice as many items as workers are processed ahead of the consumer. After an error or
    closing, no further items are started. A single worker is the thread of the consumer.
    """
    if workers == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="transfer")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            if len(waiting) == 2 * workers:
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
