"""A store that is read over plain HTTP or HTTPS, from any server of files.

What it reads is worth what its readers check: signatures, digests and lengths
(:mod:`zoo.client.trust`).
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn, TypeVar
from urllib.parse import urlsplit

from zoo.stores.base import WITNESS, Abandoned, Entry, Progress, check_key, too_long
from zoo.stores.transfer import WORKERS, again, append_parts, appending, present
from zoo.util.errors import RepositoryError
from zoo.util.version import __version__

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager, Retry

T = TypeVar("T")

BACKOFF = 0.5
"""Seconds before the second try of a request; twice as many before each that follows."""

_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")
"""``Content-Range``: where a part begins, and the length of the whole."""


class _BrokenOffError(Exception):
    """An answer ended before its end."""


class HttpStore:
    """The reading half of an :class:`~zoo.stores.base.ObjectStore`.

    Args:
        url: Where the repository lies.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if not parts.hostname or parts.query or parts.fragment:
            raise RepositoryError(
                f"'{url}' is not where a repository lies", hint="https://host/path, and no more"
            )
        self._url = url.rstrip("/")
        self._pool = _connect(parts.scheme, parts.hostname)
        self._answered = False

    @property
    def url(self) -> str:
        """Where the repository lies."""
        return self._url

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """Returns an object's bytes."""

        def read() -> bytes:
            with self._asked("GET", key, (200,)) as answer:
                length = _length(answer) or 0
                if limit is not None and length > limit:
                    raise too_long(self.url, key, limit)
                data = bytes(answer.read(None if limit is None else limit + 1))
            if len(data) < length:
                raise _BrokenOffError
            return data

        data = self._again(key, read)
        if limit is not None and len(data) > limit:
            raise too_long(self.url, key, limit)
        return data

    def size(self, key: str) -> int | None:
        """Returns an object's length, None when there is none."""
        try:
            with self._asked("HEAD", key, (200,)) as answer:
                length = _length(answer)
            if length is None:  # a server that makes its answers as it goes
                with self._asked("GET", key, (200, 206), "bytes=0-0") as answer:
                    length = self._span(key, answer)[1] if answer.status == 206 else None
        except KeyError:
            return None
        if length is None:
            raise self._unfit(key, "does not say how long it is")
        return length

    def fetch(
        self, key: str, path: Path, *, size: int | None = None, progress: Progress | None = None
    ) -> None:
        """Downloads an object in parts; in one go from a server that has no ranges."""
        start = present(path)
        with self._asked("GET", key, (200, 206, 416), f"bytes={start}-{start}") as answer:
            ranges = answer.status != 200
            end = self._span(key, answer)[1] if answer.status == 206 else _length(answer)
        if answer.status == 416:  # nothing is left of it
            end = self.size(key)
        if size is not None and end is not None and end > size:
            raise too_long(self.url, key, size)
        with appending(path) as file:
            if ranges and end is not None:
                append_parts(file, end, lambda first, n: self._part(key, first, n), progress)
            else:
                self._again(key, lambda: self._stream(key, file, size, progress))

    def local_path(self, key: str) -> Path | None:
        """A server's files have no paths here."""
        return None

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Refuses."""
        self._refuse()

    def put_file(self, key: str, path: Path, *, progress: Progress | None = None) -> bool:
        """Refuses."""
        self._refuse()

    def delete(self, key: str) -> None:
        """Refuses."""
        self._refuse()

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Refuses."""
        self._refuse()

    def check_writable(self) -> None:
        """Refuses."""
        self._refuse()

    def abandoned(self, before: datetime) -> Iterator[Abandoned]:
        """Refuses."""
        self._refuse()

    def discard(self, left: Abandoned) -> None:
        """Refuses."""
        self._refuse()

    def list(self, prefix: str) -> Iterator[Entry]:
        """Refuses: plain HTTP has no listing."""
        raise RepositoryError(
            f"{self.url}: plain HTTP can't list what lies there",
            hint="for what needs a list, use the repository's s3:// URL or its directory",
        )

    def _refuse(self) -> NoReturn:
        raise RepositoryError(
            f"{self.url}: plain HTTP is for reading",
            hint="write to the repository's s3:// URL or its directory",
        )

    def _part(self, key: str, first: int, length: int) -> bytes:
        """Returns one part, whole and from the right place."""

        def read() -> bytes:
            span = f"bytes={first}-{first + length - 1}"
            with self._asked("GET", key, (206,), span) as answer:
                if self._span(key, answer)[0] != first:
                    raise self._unfit(key, f"sent another part of it than {span}")
                data = bytes(answer.read(length + 1))
            if len(data) < length:
                raise _BrokenOffError
            if len(data) > length:
                raise self._unfit(key, f"sent more of it than {span}")
            return data

        return self._again(key, read)

    def _stream(
        self, key: str, file: BinaryIO, size: int | None, progress: Progress | None
    ) -> None:
        """Reads the whole object and appends what the file does not have yet."""
        have, at = file.tell(), 0
        with self._asked("GET", key, (200,)) as answer:
            while data := answer.read(1 << 20):
                if size is not None and at + len(data) > size:
                    raise too_long(self.url, key, size)
                new = data[max(0, have - at) :]
                at += len(data)
                file.write(new)
                if progress is not None and new:
                    progress(len(new))

    def _span(self, key: str, answer: BaseHTTPResponse) -> tuple[int | None, int]:
        """Returns where a part begins, and how long the whole object is, bytes."""
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if found is None:
            raise self._unfit(key, "does not say how long it is")
        return (None if found[1] is None else int(found[1])), int(found[2])

    @contextmanager
    def _asked(
        self, method: str, key: str, good: tuple[int, ...], span: str = ""
    ) -> Iterator[BaseHTTPResponse]:
        """Sends a request; what is not read of the answer is never sent for.

        Raises:
            KeyError: There is no such object.
            RepositoryError: The server can't be reached, or answers something else.
        """
        from urllib3.exceptions import HTTPError

        headers = {"Accept-Encoding": "identity", "User-Agent": f"caft-zoo/{__version__}"}
        if span:
            headers["Range"] = span
        url = f"{self._url}/{check_key(key)}".replace("+", "%2B")  # to some servers, a blank
        try:
            answer = self._pool.request(
                method,
                url,
                headers=headers,
                preload_content=False,
                decode_content=False,
                retries=_retry(connect=None if self._answered else 1),
            )
        except HTTPError as error:
            raise self._unreachable(error) from error
        self._answered = True
        try:
            if answer.status not in good:
                raise self._refusal(key, answer)
            if (coding := answer.headers.get("Content-Encoding", "identity")) != "identity":
                raise self._unfit(key, f"sends it as {coding}, though it was asked not to")
            yield answer
        finally:
            answer.close()

    def _again(self, key: str, work: Callable[[], T]) -> T:
        from urllib3.exceptions import HTTPError

        try:
            return again(work, (HTTPError, _BrokenOffError))
        except (HTTPError, _BrokenOffError) as error:
            raise RepositoryError(
                f"{self.url}: the connection broke off, again and again, in the middle of {key}",
                hint="run this again later: it goes on from what is there",
            ) from error

    def _refusal(self, key: str, answer: BaseHTTPResponse) -> Exception:
        status = answer.status
        if status in (404, 410):
            return KeyError(key)
        if status in (401, 403):
            if self._is_open(key):
                return KeyError(key)
            return RepositoryError(
                f"{self.url}: the server lets nobody read {key} (status {status})",
                hint="check the URL; for a private bucket take its s3:// URL and credentials",
            )
        return RepositoryError(
            f"{self.url}: the server answers {key} with status {status}",
            hint="run this again later; if it stays, tell the repository's maintainers",
        )

    def _is_open(self, key: str) -> bool:
        """Whether this store can be read: buckets deny what is absent to whom may not list."""
        try:
            return key != WITNESS and self.size(WITNESS) is not None
        except RepositoryError:
            return False

    def _unreachable(self, error: Exception) -> RepositoryError:
        cause = getattr(error, "reason", None) or error
        return RepositoryError(
            f"{self.url} can't be reached: {_words(cause)}",
            hint="check the URL, the network and HTTPS_PROXY; a certificate that this machine does "
            "not know goes into a file that SSL_CERT_FILE names",
        )

    def _unfit(self, key: str, what: str) -> RepositoryError:
        return RepositoryError(
            f"{self.url}: the server of {key} {what}",
            hint="it, or a proxy before it, can't serve a repository; tell its maintainers",
        )


def _connect(scheme: str, host: str) -> PoolManager:
    """Returns a pool of connections, through the environment's proxy where there is one."""
    import urllib3

    timeout = urllib3.Timeout(connect=10, read=60)
    proxy = urllib.request.getproxies().get(scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        return urllib3.ProxyManager(proxy, maxsize=WORKERS, timeout=timeout)
    return urllib3.PoolManager(maxsize=WORKERS, timeout=timeout)


def _retry(*, connect: int | None) -> Retry:
    """Says how often a request is tried again.

    Args:
        connect: How often to connect; None for as often as the rest. A server that has not
            answered yet is most likely out of reach: who is offline is told soon.
    """
    import urllib3

    return urllib3.Retry(
        total=5,
        connect=connect,
        backoff_factor=BACKOFF,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
    )


def _length(answer: BaseHTTPResponse) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _words(cause: object) -> str:
    """Says what happened without the names of the objects to which it did."""
    text = str(cause)
    return text.rsplit(">: ", 1)[-1].rsplit("HTTPSConnectionPool", 1)[-1] or type(cause).__name__
