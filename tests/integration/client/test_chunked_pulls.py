"""Engines as chunks over directories, HTTP and S3, through the commands."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from support.chunked_engines import engine, in_chunks, pack_paths, pull, rebuilt
from support.faulty_servers import Quiet, serving
from support.goldens import assert_golden
from support.s3_server import S3Server
from support.signed_repository import LABEL, Signed

from builders.cli.main import farm_parser
from builders.publish.garbage import collect
from zoo.cli.main import client_parser, run_cli
from zoo.client.mirror import Filter, mirror
from zoo.repository.repository import Repository
from zoo.schema.chunks import Chunking
from zoo.schema.layout import blob_key
from zoo.stores import open_store
from zoo.util.errors import NoRangesError

MEBIBYTES = 3
OLD = engine(0, MEBIBYTES << 20)
NEW = rebuilt(OLD)


class Files(Quiet):
    """Serves a folder with or without ranges, and lists the requests."""

    folder = Path()
    ranges = True
    requests: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.requests.append((self.path, asked))
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        self._send(data, asked if self.ranges else None)

    do_HEAD = do_GET

    def _send(self, data: bytes, asked: str | None) -> None:
        body, total = data, len(data)
        if asked:
            first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
            body = data[first : last + 1]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def fetched(signed: Signed, url: str, **options: object) -> int:
    """Updates a client of a store from the old engine to the new; returns what it fetched."""
    store = open_store(url)
    pulled = pull(signed.client(store=store), **options)
    assert pulled.engine.read_bytes() == NEW
    assert pulled.transfer is not None
    return pulled.transfer.fetched


@pytest.fixture
def published(signed: Signed) -> Signed:
    """Both engines are published; the client "home" has the old one."""
    in_chunks(signed).release("m", OLD)
    signed.pulled(signed.client())
    signed.release("m", NEW)
    return signed


def test_an_update_over_http_asks_for_ranges(published: Signed) -> None:
    Files.folder, Files.ranges, Files.requests = published.folder / "store", True, []
    with serving(Files) as url:
        assert fetched(published, url) < 0.1 * len(OLD)
    packs = {f"/blobs/sha256/{path.name[:2]}/{path.name}" for path in pack_paths(published)}
    asked = [span for path, span in Files.requests if path in packs]
    assert 1 <= len(asked) <= 3
    assert all(asked)


def test_a_server_without_ranges_sends_the_whole(published: Signed) -> None:
    Files.folder, Files.ranges, Files.requests = published.folder / "store", False, []
    with serving(Files) as url:
        (path, *_) = pack_paths(published)
        with pytest.raises(NoRangesError):
            open_store(url).read_range(f"blobs/sha256/{path.name[:2]}/{path.name}", 1, 2)
        assert fetched(published, url) == len(NEW)


def test_an_update_from_a_bucket(published: Signed, s3: str) -> None:
    mirror(published.client(), open_store(s3), Filter())
    assert fetched(published, s3) < 0.1 * len(OLD)


def test_a_bucket_is_published_to_in_chunks(tmp_path: Path, s3_server: S3Server, s3: str) -> None:
    signed = in_chunks(Signed(tmp_path, url=s3))
    signed.release("m", OLD)
    signed.pulled(signed.client())
    signed.release("m", NEW)
    assert fetched(signed, s3_server.http_url(s3)) < 0.1 * len(OLD)


@pytest.mark.parametrize("ranges", [True, False])
def test_chunks_alone_are_read_over_http(published: Signed, tmp_path: Path, ranges: bool) -> None:
    published.publish(chunking=Chunking.ONLY)
    (entry, *_) = published.client("reader").model("m").current
    published.path(blob_key(entry.engine.sha256)).unlink()  # what gc does
    Files.folder, Files.ranges, Files.requests = published.folder / "store", ranges, []
    with serving(Files) as url:
        assert fetched(published, url) < 0.1 * len(OLD)  # without ranges, one pack of two
        made = tmp_path / "engine"
        Repository(open_store(url)).blobs.fetch(entry.engine, made)
        assert made.read_bytes() == NEW
        assert not list(tmp_path.glob("pack-*"))
        assert not list((published.folder / "home/cache/engines").glob("*pack-*"))


def test_a_bucket_has_chunks_alone(tmp_path: Path, s3_server: S3Server, s3: str) -> None:
    signed = in_chunks(Signed(tmp_path, url=s3), Chunking.ONLY)
    record = signed.release("m", OLD)
    signed.pulled(signed.client())
    signed.release("m", NEW)
    for days in (1, 9):
        now = signed.now + timedelta(days=days)
        collect(signed.client("collector"), timedelta(days=7), now, delete=True)
    assert signed.store.size(blob_key(record.engine.sha256)) is None
    assert fetched(signed, s3_server.http_url(s3)) < 0.1 * len(OLD)
    signed.publish(chunking=Chunking.OFF)
    assert signed.store.size(blob_key(record.engine.sha256)) == len(OLD)


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    parser = farm_parser() if arguments[0] in ("chunks", "check") else client_parser()
    status = run_cli(parser, arguments)
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_commands_say_what_was_fetched(
    signed: Signed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZOO_HOME", str(signed.folder / "zoo-home"))
    store = ["--store", str(signed.folder / "store")]
    keys = ["--keys", str(signed.folder / "keys")]
    monkeypatch.setattr("builders.publish.publisher.check_apart", signed.check)
    pulling = ["pull", "m", *store, "--target", LABEL]

    signed.release("m", OLD)
    status, out, _ = run(["chunks", "on", *store, *keys], capsys)
    assert status == 0
    assert_golden("client/chunks-on", out)
    status, _, err = run(pulling, capsys)
    assert status == 0
    assert "reused 0.00 MiB" in err
    signed.release("m", NEW)
    status, out, err = run([*pulling, "--json"], capsys)
    assert status == 0, err
    assert_golden("client/pull-of-chunks", err)
    stated = json.loads(out)
    assert stated["fetched"] < 0.1 * len(OLD)
    assert Path(stated["engine"]).read_bytes() == NEW
    status, out, _ = run([*pulling, "--json"], capsys)
    assert json.loads(out)["fetched"] == 0

    status, _, err = run([*pulling, "--seed", "absent.onnx"], capsys)
    assert status == 2
    assert "absent.onnx" in err
    for word in ("only", "off"):
        status, out, _ = run(["chunks", word, *store, *keys], capsys)
        assert status == 0
        assert_golden(f"client/chunks-{word}", out)


def test_check_finds_and_removes_damaged_chunks(
    signed: Signed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZOO_HOME", str(signed.folder / "zoo-home"))
    monkeypatch.setattr("builders.publish.publisher.check_apart", signed.check)
    in_chunks(signed).release("m", OLD)
    store = ["--store", str(signed.folder / "store")]
    assert run(["check", *store], capsys)[0] == 0
    (path,) = pack_paths(signed)
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    status, out, _ = run(["check", *store], capsys)
    assert status == 10
    assert path.name in out
    assert run(["check", *store, "--repair"], capsys)[0] == 0
    assert not path.exists()
    assert run(["chunks", "on", *store, "--keys", str(signed.folder / "keys")], capsys)[0] == 0
    assert path.read_bytes() == whole
    assert run(["check", *store], capsys)[0] == 0
