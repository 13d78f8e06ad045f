"""Servers that send a byte now and then: given up, and nobody else waits for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.faulty_servers import DrippingHttp, DrippingS3, serving
from support.paths import ROOT, TESTS

from zoo.stores import http_server, open_store, patience
from zoo.stores.s3.connect import open_s3
from zoo.stores.s3.store import S3Store
from zoo.util.errors import RepositoryError


@pytest.fixture
def dripping(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    """A store on a server that drips, and a client of little patience."""
    monkeypatch.setattr(patience, "WINDOW", 0.4)
    monkeypatch.setattr(patience, "ANSWER", 1.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with serving(DrippingS3) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        DrippingS3.waiting.clear()
        try:
            yield open_s3("bucket", attempts=1)
        finally:
            DrippingS3.waiting.set()


READS: dict[str, Callable[[S3Store, Path], object]] = {
    "body": lambda store, folder: store.get("index.json"),
    "list": lambda store, folder: list(store.list("engines/")),
    "headers": lambda store, folder: store.size("index.json"),
    "upload": lambda store, folder: store.put("probe", b"1"),
}


@pytest.mark.parametrize("drips", READS)
def test_an_s3_server_that_drips_is_given_up(
    drips: str, dripping: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DrippingS3, "drips", drips)
    with pytest.raises(RepositoryError) as raised:
        READS[drips](dripping, tmp_path)
    assert raised.value.hint
    assert dripping.url in raised.value.message


def test_a_lock_on_a_server_that_drips_is_not_waited_for(
    dripping: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DrippingS3, "drips", "body")
    with pytest.raises(RepositoryError), dripping.lock("publish"):
        pass


@pytest.mark.parametrize("command", [["list"], ["show", "m"], ["pull", "m"]])
def test_the_first_interrupt_ends_a_command_that_waits_for_a_server(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DrippingS3, "drips", "body")
    DrippingS3.waiting.clear()
    DrippingS3.asked.clear()
    with serving(DrippingS3) as url:
        environment = {
            **os.environ, "ZOO_HOME": str(tmp_path), "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}",
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "zoo.cli", *command, "--store", url, "--trust", "0" * 64],
            env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            assert DrippingS3.asked.wait(60)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
            DrippingS3.waiting.set()
    assert process.returncode == 130
    assert "Traceback" not in errors


@pytest.mark.parametrize("drips", ["header", "continue", "head of a chunk"])
def test_an_http_server_that_drips_is_given_up(drips: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "ANSWER", 0.4)
    monkeypatch.setattr(http_server, "WINDOW", 0.4)
    monkeypatch.setattr(DrippingHttp, "drips", drips)
    DrippingHttp.waiting.clear()
    with serving(DrippingHttp) as url:
        try:
            with pytest.raises(RepositoryError, match=url) as raised:
                open_store(url).get("index.json")
        finally:
            DrippingHttp.waiting.set()
    assert raised.value.hint


def test_a_server_that_asks_for_hours_is_not_waited_for() -> None:
    assert not http_server.retry_policy(connect=None).respect_retry_after_header
