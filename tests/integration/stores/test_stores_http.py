"""Reading over plain HTTP: from servers that are as they should be, and from others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.faulty_servers import OddFiles, serving
from support.goldens import assert_golden

import zoo.stores.transfer
from zoo.stores import http_server
from zoo.stores.base import ObjectStore
from zoo.stores.http import HttpStore
from zoo.stores.http_server import retry_policy
from zoo.util.errors import NoRangesError, RepositoryError, TooLongError

CONTENT = os.urandom(20 << 20)

Server = Callable[..., HttpStore]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.stores.transfer, "PAUSE", 0.0)


@pytest.fixture
def server() -> Iterator[Server]:
    """Starts a server of CONTENT with the faults that are named."""
    OddFiles.content, OddFiles.faults = CONTENT, set()
    OddFiles.requests, OddFiles.sent = [], []
    with serving(OddFiles) as url:

        def with_faults(*faults: str) -> HttpStore:
            OddFiles.faults = set(faults)
            return HttpStore(url)

        yield with_faults


@pytest.mark.parametrize("faults", [(), ("breaks",), ("no-ranges",), ("no-ranges", "no-length")])
@pytest.mark.parametrize("have", [0, 5_000_000, len(CONTENT)])
def test_a_file_arrives_whole(
    server: Server, faults: tuple[str, ...], have: int, tmp_path: Path
) -> None:
    store, copy = server(*faults), tmp_path / "copy"
    copy.write_bytes(CONTENT[:have])
    told: list[int] = []
    store.fetch("k", copy, size=len(CONTENT), progress=told.append)
    assert copy.read_bytes() == CONTENT
    assert sum(told) == len(CONTENT) - have


def test_what_is_there_is_not_sent_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(CONTENT[:-100])
    server().fetch("k", tmp_path / "copy")
    assert sum(OddFiles.sent) < 200


@pytest.mark.parametrize("size", [0, 1 << 20, len(CONTENT) + 1])
def test_endless_data_is_cut_off(server: Server, size: int, tmp_path: Path) -> None:
    store = server("endless")
    with pytest.raises(TooLongError, match=r"\bk\b"):
        store.fetch("k", tmp_path / "copy", size=size)
    assert (tmp_path / "copy").stat().st_size <= size
    with pytest.raises(TooLongError, match=r"\bk\b"):
        store.get("k", limit=size)


def test_what_says_that_it_is_too_long_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    with pytest.raises(TooLongError):
        server().fetch("k", tmp_path / "copy", size=len(CONTENT) - 1)
    assert sum(OddFiles.sent) <= 1
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("fault", "fact"),
    [
        ("short", "reading k"),
        ("other-part", "another range than bytes="),
        ("gzip", "sends gzip"),
        ("secret", r"k \(status 403\)"),
        ("down", "k with status 500"),
    ],
)
def test_an_unfit_server_is_named(
    server: Server, fault: str, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.stores.http_server.BACKOFF", 0.0)
    store = server(fault)
    with pytest.raises(RepositoryError, match=fact) as caught:
        store.fetch("k", tmp_path / "copy")
    assert store.url in caught.value.message
    assert_golden(f"stores_http/{fault}", caught.value, {store.url: "URL"})
    copy = tmp_path / "copy"
    assert not copy.exists() or CONTENT.startswith(copy.read_bytes())


def test_a_range_goes_on_where_it_broke_off(server: Server) -> None:
    store, pieces = server("breaks"), list[bytes]()
    for first in (100, 200):
        store.stream_range("k", first, 1_000_000, pieces.append)
    assert b"".join(pieces) == CONTENT[100:1_000_100] + CONTENT[200:1_000_200]
    begins = {int(asked.partition("bytes=")[2].partition("-")[0]) for asked in OddFiles.requests}
    assert len(begins) == len(OddFiles.requests) > 2
    assert begins - {100, 200} <= {500_100, 500_200}


@pytest.mark.parametrize("fault", ["short", "other-part", "longer", "no-ranges"])
def test_nothing_but_the_range_is_passed_on(server: Server, fault: str) -> None:
    store, pieces = server(fault), list[bytes]()
    with pytest.raises((RepositoryError, NoRangesError), match=r"\bk\b"):
        store.stream_range("k", 100, 1000, pieces.append)
    assert CONTENT[100:1100].startswith(b"".join(pieces))


def test_denied_means_absent_where_the_repository_can_be_read(server: Server) -> None:
    store = server("hides")
    assert store.size("k") is None
    with pytest.raises(KeyError):
        store.get("k")


def test_the_length_is_found_without_a_header(server: Server) -> None:
    assert server("no-length").size("k") == len(CONTENT)


def test_an_unreachable_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.stores.http_server.BACKOFF", 0.0)
    with pytest.raises(RepositoryError, match=r"127\.0\.0\.1:9.*refused") as caught:
        HttpStore("http://127.0.0.1:9").get("k")
    assert_golden("stores_http/unreachable", caught.value)


def test_a_server_that_has_answered_is_asked_more_often_than_one_that_never_did(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def noted(*, connect: int | None) -> Any:
        asked.append(connect)
        return retry(connect=connect)

    retry = retry_policy
    monkeypatch.setattr("zoo.stores.http_server.retry_policy", noted)
    store = server("no-length")
    store.size("k")
    store.size("k")
    assert asked[0] == 1
    assert set(asked[1:]) == {None}


def test_http_stores_are_read_only() -> None:
    store: ObjectStore = HttpStore("https://host/path")
    for refused in (
        lambda: store.put("k", b""),
        lambda: store.delete("k"),
        lambda: store.lock("publish"),
        lambda: store.check_writable(),
        lambda: store.abandoned(datetime.now(timezone.utc)),
    ):
        with pytest.raises(RepositoryError, match="https://host/path") as caught:
            refused()
        assert_golden("stores_http/read-only", caught.value)
    with pytest.raises(RepositoryError, match="https://host/path") as caught:
        store.list("")
    assert_golden("stores_http/no-listing", caught.value)


def test_a_web_page_is_named_as_such(server: Server, tmp_path: Path) -> None:
    store = server("page")
    for read in (
        lambda: store.get("index.json"),
        lambda: store.size("index.json"),
        lambda: store.fetch("index.json", tmp_path / "copy"),
    ):
        with pytest.raises(RepositoryError) as raised:
            read()
        assert f"{store.url}/index.json" in raised.value.message
        assert_golden("stores_http/web_page", raised.value, {store.url: "URL"})
    assert not (tmp_path / "copy").exists()


class DripHandler(BaseHTTPRequestHandler):
    """Declares 4 MB, and sends a byte at a time."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4000000")
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.02)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.mark.parametrize("limit", [None, 5_000_000])
def test_a_server_that_sends_a_byte_at_a_time_is_given_up(
    monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    monkeypatch.setattr(http_server, "WINDOW", 0.5)
    server = ThreadingHTTPServer(("127.0.0.1", 0), DripHandler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store = HttpStore(f"http://127.0.0.1:{server.server_port}")
    start = time.monotonic()
    with pytest.raises(RepositoryError, match=r"index\.json"):
        store.get("index.json", limit=limit)
    assert time.monotonic() - start < 5
    server.shutdown()
