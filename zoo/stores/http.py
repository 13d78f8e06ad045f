"""A read-only store over plain HTTP or HTTPS, from any file server.

Nothing that it returns is trusted: callers check signatures, digests and lengths
(:mod:`zoo.client.trust`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NoReturn

from zoo.stores.base import Abandoned, Entry, Progress, Take, too_long
from zoo.stores.http_server import BrokenOffError, HttpServer, content_length
from zoo.stores.transfer import append_parts, appending, present
from zoo.util.errors import NoRangesError, RepositoryError


class HttpStore:
    """The read operations of an :class:`~zoo.stores.base.ObjectStore`.

    Args:
        url: URL of the repository.
    """

    def __init__(self, url: str) -> None:
        self._server = HttpServer(url)

    @property
    def url(self) -> str:
        """URL of the repository."""
        return self._server.url

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """Returns an object's bytes."""

        def read() -> bytes:
            with self._server.request("GET", key, (200,)) as answer:
                length = content_length(answer) or 0
                if limit is not None and length > limit:
                    raise too_long(self.url, key, limit)
                data = self._server.read(key, answer, None if limit is None else limit + 1)
            if len(data) < length:
                raise BrokenOffError
            return data

        data = self._server.retried(key, read)
        if limit is not None and len(data) > limit:
            raise too_long(self.url, key, limit)
        return data

    def size(self, key: str) -> int | None:
        """Returns an object's length, None if it does not exist."""
        try:
            with self._server.request("HEAD", key, (200,)) as answer:
                length = content_length(answer)
            if length is None:  # the server generates its responses
                with self._server.request("GET", key, (200, 206), "bytes=0-0") as answer:
                    length = self._server.span(key, answer)[1] if answer.status == 206 else None
        except KeyError:
            return None
        if length is None:
            raise self._server.unfit(key, "does not report its length")
        return length

    def fetch(
        self, key: str, path: Path, *, size: int | None = None, progress: Progress | None = None
    ) -> None:
        """Downloads an object in parts, or in one request if the server has no ranges."""
        start = present(path)
        with self._server.request("GET", key, (200, 206, 416), f"bytes={start}-{start}") as answer:
            has_ranges = answer.status != 200
            end = (
                self._server.span(key, answer)[1]
                if answer.status == 206
                else content_length(answer)
            )
        if answer.status == 416:  # the file already has the whole object
            end = self.size(key)
        if size is not None and end is not None and end > size:
            raise too_long(self.url, key, size)
        with appending(path) as file:
            if has_ranges and end is not None:
                append_parts(file, end, lambda first, n: self._part(key, first, n), progress)
            else:
                self._server.retried(key, lambda: self._stream(key, file, size, progress))

    def read_range(self, key: str, first: int, length: int) -> bytes:
        """Returns a range of an object."""
        pieces: list[bytes] = []
        self.stream_range(key, first, length, pieces.append)
        return b"".join(pieces)

    def stream_range(self, key: str, first: int, length: int, take: Take) -> None:
        """Passes a range of an object on as it arrives; goes on where a connection broke off."""
        passed = 0

        def count(piece: bytes) -> None:
            nonlocal passed
            take(piece)
            passed += len(piece)

        def read() -> None:
            if passed == length:  # only the end of the connection was waited for
                return
            self._stream_part(key, first + passed, length - passed, count, (200, 206))

        self._server.retried(key, read)

    def local_path(self, key: str) -> Path | None:
        """Returns None: the files are on the server."""
        return None

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Raises RepositoryError: HTTP stores are read-only."""
        self._refuse()

    def put_file(self, key: str, path: Path, *, progress: Progress | None = None) -> bool:
        """Raises RepositoryError: HTTP stores are read-only."""
        self._refuse()

    def delete(self, key: str) -> None:
        """Raises RepositoryError: HTTP stores are read-only."""
        self._refuse()

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Raises RepositoryError: HTTP stores are read-only."""
        self._refuse()

    def check_writable(self) -> None:
        """Raises RepositoryError: HTTP stores are read-only."""
        self._refuse()

    def abandoned(self, before: datetime) -> Iterator[Abandoned]:
        """Raises RepositoryError: HTTP stores are read-only."""
        self._refuse()

    def discard(self, left: Abandoned) -> None:
        """Raises RepositoryError: HTTP stores are read-only."""
        self._refuse()

    def list(self, prefix: str) -> Iterator[Entry]:
        """Raises RepositoryError: plain HTTP can't list objects."""
        raise RepositoryError(
            f"{self.url}: plain HTTP can't list objects",
            hint="for commands that list, use the repository's s3:// URL or its directory",
        )

    def _refuse(self) -> NoReturn:
        raise RepositoryError(
            f"{self.url}: repositories are read-only over plain HTTP",
            hint="write to the repository's s3:// URL or its directory",
        )

    def _part(self, key: str, first: int, length: int) -> bytes:
        """Returns one part, after checking its position and length."""

        def read() -> bytes:
            pieces: list[bytes] = []
            self._stream_part(key, first, length, pieces.append, (206,))
            return b"".join(pieces)

        return self._server.retried(key, read)

    def _stream_part(
        self, key: str, first: int, length: int, take: Take, good: tuple[int, ...]
    ) -> None:
        """Passes one part on, after checking its position; of a longer one, nothing beyond it.

        Args:
            key: Key of the object.
            first: First byte of the part.
            length: Length of the part.
            take: Called with its bytes as they arrive.
            good: Status codes that count as success; with 200, of a server without ranges.

        Raises:
            NoRangesError: It has none.
        """
        span = f"bytes={first}-{first + length - 1}"
        with self._server.request("GET", key, good, span) as answer:
            if answer.status == 200:
                raise NoRangesError(
                    f"{self.url}: the server sent all of {key} instead of {span}",
                    hint="serve the repository with a server that supports range requests",
                )
            if self._server.span(key, answer)[0] != first:
                raise self._server.unfit(key, f"sent another range than {span}")
            left = length
            for piece in self._server.pieces(key, answer, length + 1):
                if len(piece) > left:
                    raise self._server.unfit(key, f"sent more than {span}")
                take(piece)
                left -= len(piece)
        if left:
            raise BrokenOffError

    def _stream(
        self, key: str, file: BinaryIO, size: int | None, progress: Progress | None
    ) -> None:
        """Reads the whole object and appends the bytes that the file does not have yet."""
        have, at = file.tell(), 0
        with self._server.request("GET", key, (200,)) as answer:
            for data in self._server.pieces(key, answer):
                if size is not None and at + len(data) > size:
                    raise too_long(self.url, key, size)
                new = data[max(0, have - at) :]
                at += len(data)
                file.write(new)
                if progress is not None and new:
                    progress(len(new))
