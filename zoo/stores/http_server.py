"""Requests to a file server: retries, proxies, and errors in this project's terms."""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

from zoo.stores.base import WITNESS, check_key
from zoo.stores.patience import answered
from zoo.stores.transfer import WORKERS, again
from zoo.util.errors import RepositoryError
from zoo.util.version import __version__

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager, Retry

T = TypeVar("T")

BACKOFF = 0.5
"""Seconds before the first retry of a request; doubled before each further retry."""

WINDOW = 30.0
"""Seconds in which a server must send :data:`PROGRESS` bytes of a body."""

PROGRESS = 4096
"""Bytes: with eight parts at once, a line of 1 kB/s is fast enough."""

_PIECE = 1 << 18

_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")
"""``Content-Range``: first byte of the range, and length of the whole object."""


class BrokenOffError(Exception):
    """A response ended before its declared length."""


class HttpServer:
    """A server of files over HTTP or HTTPS.

    Args:
        url: URL of the repository.

    Raises:
        RepositoryError: The URL has no host, or has a query or fragment.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if not parts.hostname or parts.query or parts.fragment:
            raise RepositoryError(
                f"'{url}' is not the URL of a repository",
                hint="use https://host/path, without a query (?) or fragment (#)",
            )
        self.url = url.rstrip("/")
        self._pool = _connect(parts.scheme, parts.hostname)
        self._answered = False

    @contextmanager
    def request(
        self, method: str, key: str, good: tuple[int, ...], span: str = ""
    ) -> Iterator[BaseHTTPResponse]:
        """Sends a request; closing it early leaves the remaining body untransferred.

        Args:
            method: HTTP method.
            key: Key of the object.
            good: Status codes that count as success.
            span: Value of the ``Range`` header.

        Raises:
            KeyError: There is no such object.
            RepositoryError: The server is unreachable, or answers with another status or with a
                web page.
        """
        from urllib3.exceptions import HTTPError

        headers = {"Accept-Encoding": "identity", "User-Agent": f"caft-zoo/{__version__}"}
        if span:
            headers["Range"] = span
        # Some servers decode + in a path as a space.
        url = f"{self.url}/{check_key(key)}".replace("+", "%2B")
        try:
            answer = answered(
                lambda: self._pool.request(
                    method,
                    url,
                    headers=headers,
                    preload_content=False,
                    decode_content=False,
                    retries=retry_policy(connect=None if self._answered else 1),
                ),
                self.url,
            )
        except HTTPError as error:
            raise self._unreachable(error) from error
        self._answered = True
        try:
            if answer.status not in good:
                raise self._refusal(key, answer.status)
            if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
                raise RepositoryError(
                    f"{self.url}: the server answered with a web page instead of {key}: "
                    f"{urljoin(url, answer.geturl() or url)}",
                    hint="open that address in a browser: it may be a login page, a network's "
                    "portal, or a page about the repository rather than the repository itself",
                )
            if (coding := answer.headers.get("Content-Encoding", "identity")) != "identity":
                raise self.unfit(key, f"ignores 'Accept-Encoding: identity' and sends {coding}")
            yield answer
        finally:
            answer.close()

    def read(self, key: str, answer: BaseHTTPResponse, limit: int | None = None) -> bytes:
        """Returns the body of a response, at most ``limit`` bytes of it.

        Raises:
            RepositoryError: Fewer than :data:`PROGRESS` bytes came in :data:`WINDOW` seconds.
        """
        return b"".join(self.pieces(key, answer, limit))

    def pieces(
        self, key: str, answer: BaseHTTPResponse, limit: int | None = None
    ) -> Iterator[bytes]:
        """Yields the body of a response as it arrives; see :meth:`read`."""
        total = since = 0
        start = time.monotonic()
        while limit is None or total < limit:
            most = _PIECE if limit is None else min(_PIECE, limit - total)
            piece = self._piece(key, answer, most)
            if not piece:
                return
            yield piece
            total += len(piece)
            since += len(piece)
            if (waited := time.monotonic() - start) > WINDOW:
                if since < PROGRESS:
                    raise _too_slow(self.url, key, since, waited)
                start, since = time.monotonic(), 0

    def _piece(self, key: str, answer: BaseHTTPResponse, most: int) -> bytes:
        """Reads what has arrived; of a chunk, its head must arrive in :data:`WINDOW` seconds."""
        if not getattr(answer, "chunked", False):
            return answer.read1(most)
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            answer.shutdown()

        timer = threading.Timer(WINDOW, give_up)
        timer.daemon = True
        timer.start()
        try:
            piece = answer.read1(most)
        except Exception as error:
            if is_late.is_set():
                raise _too_slow(self.url, key, 0, WINDOW) from error
            raise
        finally:
            timer.cancel()
        if is_late.is_set():
            raise _too_slow(self.url, key, 0, WINDOW)
        return piece

    def retried(self, key: str, work: Callable[[], T]) -> T:
        """Runs ``work`` again when the connection breaks off in the middle of a response.

        Raises:
            RepositoryError: It broke off at every attempt.
        """
        from urllib3.exceptions import HTTPError

        try:
            return again(work, (HTTPError, BrokenOffError))
        except (HTTPError, BrokenOffError) as error:
            raise RepositoryError(
                f"{self.url}: the connection broke off repeatedly while reading {key}",
                hint="try again later: the download resumes where it stopped",
            ) from error

    def span(self, key: str, answer: BaseHTTPResponse) -> tuple[int | None, int]:
        """Returns the first byte of a range and the length of the whole object."""
        match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None:
            raise self.unfit(key, "does not report its length")
        return (None if match[1] is None else int(match[1])), int(match[2])

    def unfit(self, key: str, what: str) -> RepositoryError:
        """Returns the error for a server whose HTTP this client can't use."""
        return RepositoryError(
            f"{self.url}: the server of {key} {what}",
            hint="this server, or a proxy in front of it, can't serve a repository; tell the "
            "repository's maintainers",
        )

    def _refusal(self, key: str, status: int) -> Exception:
        if status in (404, 410):
            return KeyError(key)
        if status in (401, 403):
            if self._is_readable(key):
                return KeyError(key)
            return RepositoryError(
                f"{self.url}: the server denies access to {key} (status {status})",
                hint="check the URL; for a private bucket use its s3:// URL with credentials",
            )
        return RepositoryError(
            f"{self.url}: the server answered the request for {key} with status {status}",
            hint="try again later; if it persists, tell the repository's maintainers",
        )

    def _is_readable(self, key: str) -> bool:
        """Whether :data:`~zoo.stores.base.WITNESS` is readable, so that a 403 means 'not found'."""
        if key == WITNESS:
            return False
        try:
            with self.request("HEAD", WITNESS, (200,)):
                return True
        except (KeyError, RepositoryError):
            return False

    def _unreachable(self, error: Exception) -> RepositoryError:
        cause = getattr(error, "reason", None) or error
        return RepositoryError(
            f"{self.url} is unreachable: {_words(cause)}",
            hint="check the URL, the network and HTTPS_PROXY; if the server uses a private "
            "certificate authority, set SSL_CERT_FILE to a file with its certificate",
        )


def _too_slow(url: str, key: str, size: int, seconds: float) -> RepositoryError:
    return RepositoryError(
        f"{url}: the server sent only {size:,} bytes of {key} in {seconds:.0f} s",
        hint="it is overloaded, or holds the connection open on purpose: try again later, or use "
        "a mirror",
    )


def content_length(answer: BaseHTTPResponse) -> int | None:
    """Returns the declared length of a response's body, None if there is none."""
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def retry_policy(*, connect: int | None) -> Retry:
    """Returns the retries of one request.

    Args:
        connect: Retries of the connection; None for the total. Few for a server that has not
            answered yet: it is most likely unreachable, and an offline user should learn it soon.
    """
    import urllib3

    return urllib3.Retry(
        total=5,
        connect=connect,
        backoff_factor=BACKOFF,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        respect_retry_after_header=False,  # a server may ask for hours
    )


def _connect(scheme: str, host: str) -> PoolManager:
    """Returns a connection pool that uses the environment's proxy, if any."""
    import urllib3

    timeout = urllib3.Timeout(connect=10, read=60)
    proxy = urllib.request.getproxies().get(scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        return urllib3.ProxyManager(proxy, maxsize=WORKERS, timeout=timeout)
    return urllib3.PoolManager(maxsize=WORKERS, timeout=timeout)


def _words(cause: object) -> str:
    """Returns the message of a urllib3 error without the object names that it starts with."""
    text = str(cause)
    return text.rsplit(">: ", 1)[-1].rsplit("HTTPSConnectionPool", 1)[-1] or type(cause).__name__
