"""Servers with one fault each, on loopback: what no real server can be had to do on demand."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from hashlib import md5
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Runs a server; yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Quiet(BaseHTTPRequestHandler):
    """Says nothing on standard error."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client has read enough
            super().handle()


class OddFiles(Quiet):
    """A server of one file at every path, with a fault.

    ``faults``: ``no-ranges``, ``breaks`` (every other body in the middle), ``endless`` (no length,
    no end), ``short`` (says a length and ends before it, always), ``other-part`` (a range that was
    not asked for), ``gzip`` (whatever was asked for), ``secret`` (403), ``hides`` (403 for all but
    repository.json), ``down`` (500), ``no-length`` (no word on how long), ``page`` (a web page),
    ``longer`` (more of a range than was asked for).
    """

    content: ClassVar[bytes] = b""
    faults: ClassVar[set[str]] = set()
    requests: ClassVar[list[str]] = []
    sent: ClassVar[list[int]] = []
    _count = itertools.count()

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        faults, content, asked = self.faults, self.content, self.headers.get("Range")
        self.requests.append(f"{self.command} {self.path} {asked}")
        if "down" in faults:
            return self._say(500)
        if "secret" in faults or ("hides" in faults and self.path != "/repository.json"):
            return self._say(403)
        odd = {"gzip": ("Content-Encoding", "gzip"), "page": ("Content-Type", "text/html")}
        headers = dict(odd[fault] for fault in faults & set(odd))
        status, first, last = 200, 0, len(content) - 1
        if asked and "no-ranges" not in faults and "endless" not in faults:
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
            assert found
            first, last = int(found[1]), min(int(found[2]), last)
            if first >= len(content):
                return self._say(416, {"Content-Range": f"bytes */{len(content)}"})
            status = 206
            shown = first + 1 if "other-part" in faults else first
            headers["Content-Range"] = f"bytes {shown}-{last}/{len(content)}"
            last += 10 * ("longer" in faults)
        if "endless" in faults or "no-length" in faults:
            headers |= {"Connection": "close"}
        else:
            headers["Content-Length"] = str(last + 1 - first)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return None
        data = content[first : last + 1]
        if "short" in faults or ("breaks" in faults and len(data) > 1 and next(self._count) % 2):
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return None
        while "endless" in faults:
            self._write(content)
        self._write(data)
        self.close_connection = "no-length" in faults
        return None

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.sent.append(len(data))

    def _say(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


class CarelessS3(Quiet):
    """An S3 server that keeps some conditions of writes and not others.

    ``keeps``: ``put`` (If-None-Match), ``tag`` (If-Match), ``parts`` (If-None-Match of uploads),
    ``race`` (If-None-Match of writers that race). A proxy that strips conditions and signs again
    keeps none. ``own`` (If-Match of the object's own tag): Ceph 16 refuses that as well.
    """

    writing: ClassVar[threading.Lock] = threading.Lock()

    keeps: ClassVar[set[str]] = set()
    objects: ClassVar[dict[str, bytes]] = {}

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if "partNumber" in query:
            return self._say(200, tag=_tag(data))
        wanted = self.headers.get("If-Match")
        own = "own" in self.keeps and wanted == _tag(self.objects.get(path, b""))
        if "tag" in self.keeps and wanted and not own:
            return self._refuse(412, "PreconditionFailed")
        with self.writing if "race" in self.keeps else nullcontext():
            if "put" in self.keeps and self.headers.get("If-None-Match") and path in self.objects:
                return self._refuse(412, "PreconditionFailed")
            if "race" not in self.keeps:
                time.sleep(0.2)  # between the condition and the write
            self.objects[path] = data
        return self._say(200, tag=_tag(data))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        if query.startswith("uploads"):
            return self._say(200, "<InitiateMultipartUploadResult><UploadId>u</UploadId>"
                             "</InitiateMultipartUploadResult>")  # fmt: skip
        if "parts" in self.keeps and self.headers.get("If-None-Match") and path in self.objects:
            return self._refuse(412, "PreconditionFailed")
        return self._say(200, "<CompleteMultipartUploadResult/>")

    def do_GET(self) -> None:
        data = self.objects.get(urlsplit(self.path).path)
        if data is None:
            return self._refuse(404, "NoSuchKey")
        return self._say(200, data.decode(), tag=_tag(data))

    def do_DELETE(self) -> None:
        if "?" not in self.path:
            self.objects.pop(self.path, None)
        self._say(204)

    def _refuse(self, status: int, code: str) -> None:
        self._say(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>")

    def _say(self, status: int, body: str = "", *, tag: str = "") -> None:
        self.send_response(status)
        if tag:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


class StrippingProxy(Quiet):
    """A proxy before an S3 server that drops the headers of conditions."""

    upstream: ClassVar[str] = ""
    requests: ClassVar[list[str]] = []

    def _pass_on(self) -> None:
        kept = {name: value for name, value in self.headers.items() if name[:3].lower() != "if-"}
        self.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server = HTTPConnection(urlsplit(self.upstream).netloc)
        with closing(server):
            server.request(self.command, self.path, body or None, kept)
            answer = server.getresponse()
            data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = answer.headers["Content-Length"] if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on


class DrippingS3(Quiet):
    """An S3 server that sends a byte now and then, and never ends.

    ``drips``: ``body`` (of an object, after its headers), ``headers``, ``list`` (the body of a
    listing) or ``upload`` (the answer to one).
    """

    drips: ClassVar[str] = "body"
    waiting: ClassVar[threading.Event] = threading.Event()
    asked: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        self._drip(b"<ListBucketResult>" if "list-type" in self.path else b"x")

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._drip(b"")

    def _drip(self, begin: bytes) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        if self.drips in ("body", "list"):
            self.wfile.write(
                b'ETag: "1"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n'
                b"Content-Length: 20000\r\n\r\n" + begin
            )
        else:
            self.wfile.write(b"X-Long: ")
        self.asked.set()
        while not self.waiting.wait(0.05):
            self.wfile.write(b" ")


def _tag(data: bytes) -> str:
    return f'"{md5(data).hexdigest()}"'


class DrippingHttp(Quiet):
    """Sends a byte or a line now and then of what urllib3 reads without a deadline."""

    drips: ClassVar[str] = ""
    waiting: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        first, again = {
            "header": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
            "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
            "head of a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
        }[self.drips]
        self.wfile.write(first)
        while not self.waiting.wait(0.05):
            self.wfile.write(again)
        self.close_connection = True
