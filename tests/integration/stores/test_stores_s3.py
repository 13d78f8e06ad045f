"""A real S3 server, and what can go wrong with one."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from support.commands import ZooFarm
from support.faulty_servers import CarelessS3, StrippingProxy, serving
from support.goldens import assert_golden, raises_golden
from support.models import SMALL
from support.paths import MANIFESTS, ROOT, TESTS
from support.s3_server import BUCKET, MAINTAINER, READER, S3Server, credentials
from support.signed_repository import Signed
from support.toy_repository import toy_repository

import zoo
import zoo.stores.transfer
from zoo.client.mirror import Filter, mirror
from zoo.repository.blobs import Blobs
from zoo.schema.layout import FIRST_ROOT, blob_key
from zoo.schema.records import Blob
from zoo.stores import open_store
from zoo.stores.base import Progress
from zoo.stores.s3.connect import open_s3
from zoo.stores.s3.store import S3Store
from zoo.stores.s3.upload import Upload
from zoo.util.digest import sha256_bytes, sha256_file
from zoo.util.errors import RepositoryError

MIB = 1 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "200 MB"
    with path.open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(MIB))
    return path


@pytest.fixture(scope="module")
def medium(large: Path) -> Path:
    path = large.with_name("64 MB")
    with large.open("rb") as file:
        path.write_bytes(file.read(64 * MIB))
    return path


@pytest.fixture
def user(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Changes who asks the server."""

    def become(key: str, secret: str) -> None:
        for name, value in credentials(s3_server.endpoint, (key, secret)).items():
            monkeypatch.setenv(name, value)

    return become


class Raw(io.BytesIO):
    """A body as botocore takes it from urllib3."""

    def stream(self, amt: int = 0, decode_content: bool | None = None) -> Iterator[bytes]:
        yield self.read()


def opened(url: str, attempts: int = 4, **named: object) -> S3Store:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return open_s3(bucket, prefix, attempts=attempts, **named)


def soon() -> datetime:
    return datetime.now(timezone.utc) + timedelta(minutes=1)


def same(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", "-s", one, other], check=False).returncode == 0


def test_200_mb_go_up_and_down_in_parts(s3: str, large: Path, tmp_path: Path) -> None:
    store, up, down = opened(s3), list[int](), list[int]()
    assert store.put_file("large", large, progress=up.append)
    store.fetch("large", tmp_path / "copy", size=200 * MIB, progress=down.append)
    assert same(large, tmp_path / "copy")
    assert len(up) == len(down) == 25
    assert sum(up) == sum(down) == 200 * MIB
    head = store._bucket.client.head_object(**store._bucket.at("large"), ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"].endswith("-25")  # the server has the SHA-256 of each part
    assert not list(store.abandoned(soon()))


def test_memory_does_not_grow_with_the_object(s3: str, large: Path, tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from zoo.stores import open_store
store = open_store({s3!r})
store.put("small", b"x")
store.fetch("small", Path({str(tmp_path / "small")!r}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.put_file("large", Path({str(large)!r}))
store.fetch("large", Path({str(tmp_path / "copy")!r}))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert int(done.stdout) < 190 * 1024, done.stderr


def test_2500_keys_take_three_requests(s3: str) -> None:
    store, requests = opened(s3), list[str]()
    threads = [
        threading.Thread(
            target=lambda n=n: [store.put(f"k/{i:04}", b"") for i in range(n, 2500, 8)]
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = store._bucket.client.meta.events
    events.register("before-send.s3", lambda request, **_: requests.append(request.url))
    assert [entry.key for entry in store.list("k/")] == [f"k/{i:04}" for i in range(2500)]
    assert len(requests) == 3


def test_other_prefixes_are_out_of_sight(s3: str) -> None:
    store, beside = open_store(s3), open_store(f"{s3}-beside")
    beside.put("k", b"x")
    assert list(store.list("")) == []
    assert store.size("k") is None


@pytest.mark.parametrize(
    ("who", "golden"),
    [
        ((MAINTAINER[0], "wrong"), "wrong-secret-key"),
        (("nobody", "wrong"), "unknown-access-key"),
    ],
)
def test_wrong_credentials_are_refused(
    s3: str, user: Callable[[str, str], None], who: tuple[str, str], golden: str, tmp_path: Path
) -> None:
    user(*who)
    store = opened(s3)
    (tmp_path / "file").write_bytes(b"x")
    for asked in (
        lambda: store.get("k"),
        lambda: store.size("k"),
        lambda: store.put("k", b"x"),
        lambda: store.put_file("k", tmp_path / "file"),
        lambda: list(store.list("")),
    ):
        with pytest.raises(RepositoryError, match=s3) as caught:
            asked()
        assert "AWS_PROFILE" in (caught.value.hint or "")
        # What was being done differs; the reason follows the last colon.
        reason = caught.value.message.rpartition(": ")[2]
        assert_golden(
            f"stores_s3/{golden}", reason, {os.environ["AWS_ENDPOINT_URL_S3"]: "ENDPOINT"}
        )


def test_without_credentials_it_says_what_to_set(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(RepositoryError, match="--anonymous"):
        open_store(s3).get("k")


def test_python_reads_a_public_bucket_without_credentials(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = toy_repository(tmp_path)
    bucket = open_store(s3)
    for entry in made.store.list(""):
        bucket.put(entry.key, made.store.get(entry.key))
    trust = sha256_bytes(made.store.get(FIRST_ROOT))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    (row,) = zoo.list_models(store=s3, trust=trust, anonymous=True)
    assert row.model == "toy"
    with zoo.load("toy", store=s3, target="cpu-ort1.32-fp32", anonymous=True) as extractor:
        assert extractor(np.zeros((32, 32, 3), np.uint8)).shape == (1, 8)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "another"))
    with pytest.raises(RepositoryError, match="--anonymous"):
        zoo.load("toy", store=s3, trust=trust)


def test_who_may_only_read_is_told(s3: str, user: Callable[[str, str], None]) -> None:
    open_store(s3).put("k", b"x")
    user(*READER)
    store = open_store(s3)
    assert store.get("k") == b"x"
    with pytest.raises(RepositoryError, match=s3):
        store.check_writable()
    hide = {s3: "URL", os.environ["AWS_ENDPOINT_URL_S3"]: "ENDPOINT"}
    with raises_golden(RepositoryError, "stores_s3/may-not-list", hide):
        list(open_store(s3, anonymous=True).list(""))


def test_a_bucket_that_is_not_there_is_said_to_be_that(s3: str) -> None:
    hide = {os.environ["AWS_ENDPOINT_URL_S3"]: "ENDPOINT"}
    with raises_golden(RepositoryError, "stores_s3/no-bucket", hide, match="s3://nothing-here/x"):
        open_store("s3://nothing-here/x").get("k")


def test_a_server_that_is_not_there_is_said_to_be_that(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(RepositoryError, match=r"127\.0\.0\.1:9"):
        opened(s3, attempts=2).get("k")


@pytest.mark.parametrize(("off", "words"), [(1, "60 minutes"), (-3, "3.0 hours")])
def test_a_wrong_clock_is_said_to_be_that(
    s3: str, monkeypatch: pytest.MonkeyPatch, off: int, words: str
) -> None:
    import botocore.auth

    clock, wrong = botocore.auth.get_current_datetime, timedelta(hours=off)
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda *a, **n: clock(*a, **n) + wrong
    )
    store = opened(s3, now=lambda: datetime.now(timezone.utc) + wrong)
    for asked in (store.get, store.size):
        with pytest.raises(RepositoryError, match=words):
            asked("k")


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server of its own, to be killed."""
    with S3Server(tmp_path / "server") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_server_that_dies_and_comes_back_costs_nothing(
    fragile: S3Server, medium: Path, tmp_path: Path
) -> None:
    store, deaths = opened(f"s3://{BUCKET}/x"), list[threading.Thread]()

    def come_back() -> None:
        time.sleep(1)
        fragile.start()

    def die_once_at(count: int) -> Callable[[int], None]:
        seen: list[int] = []

        def progress(more: int) -> None:
            seen.append(more)
            if len(seen) == count:
                fragile.kill()
                deaths.append(threading.Thread(target=come_back))
                deaths[-1].start()

        return progress

    assert store.put_file("it", medium, progress=die_once_at(4))
    deaths[-1].join()
    store.fetch("it", tmp_path / "copy", progress=die_once_at(3))
    deaths[-1].join()
    assert len(deaths) == 2
    assert same(medium, tmp_path / "copy")


def test_a_server_that_fails_for_a_while_costs_nothing(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo.stores.transfer, "PAUSE", 0.0)
    store, refused = opened(s3, attempts=1), list[str]()
    assert store.put("it", b"x")

    def fail(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        if len(refused) == 3:
            return None
        refused.append(request.url)
        body = b"<Error><Code>InternalError</Code><Message>Please try again.</Message></Error>"
        return AWSResponse(request.url, 500, {}, Raw(body))

    store._bucket.client.meta.events.register("before-send.s3", fail)
    assert store.get("it") == b"x"
    assert len(refused) == 3
    refused.clear()
    monkeypatch.setattr(zoo.stores.transfer, "ATTEMPTS", 3)
    with pytest.raises(RepositoryError, match="InternalError"):
        store.get("it")


def test_a_server_that_stays_dead_leaves_nothing_visible(
    fragile: S3Server, medium: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(f"s3://{BUCKET}/x", attempts=2)
    monkeypatch.setattr(zoo.stores.transfer, "PAUSE", 0.0)
    with pytest.raises(RepositoryError, match=r"\bit\b"):
        store.put_file("it", medium, progress=lambda count: fragile.kill())
    fragile.start()
    assert store.size("it") is None
    assert [left.name for left in store.abandoned(soon())] == ["it"]
    assert store.put_file("it", medium)


def killed_while(url: str, does: str, until: str) -> None:
    """Kills a process that writes to a store as soon as it prints a line."""
    code = f"""
from pathlib import Path
from test_stores_s3 import opened
store = opened({url!r}, lease=2)
{does}
"""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{TESTS}:{Path(__file__).parent}"}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, env=environment, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().decode().strip() == until
        process.send_signal(signal.SIGKILL)


def test_what_a_killed_writer_leaves_can_be_removed(s3: str, large: Path) -> None:
    killed_while(
        s3, f"store.put_file('k/large', Path({str(large)!r}), progress=print)", str(8 * MIB)
    )
    store = opened(s3)
    assert list(store.list("")) == []
    assert not list(store.abandoned(datetime.now(timezone.utc) - timedelta(hours=1)))
    (left,) = store.abandoned(soon())
    assert left.name == "k/large"
    store.discard(left)
    store.discard(left)
    assert not list(store.abandoned(soon()))


def test_the_lock_of_a_killed_writer_is_taken_over(s3: str) -> None:
    does = "import time\nwith store.lock('publish'):\n    print('held')\n    time.sleep(60)"
    killed_while(s3, does, "held")
    told: list[str] = []
    begun = time.monotonic()
    with opened(s3, lease=2, say=told.append).lock("publish"):
        assert time.monotonic() - begun > 1
    with opened(s3, lease=2).lock("publish"):  # and was given back
        pass


def refused(store: S3Store, message: str) -> None:
    """Asks for the lock, which somebody else has."""
    with pytest.raises(RepositoryError, match=message), store.lock("publish"):
        pass


def test_who_waits_in_vain_is_told_for_whom(s3: str) -> None:
    with opened(s3).lock("publish"):
        refused(opened(s3, patience=0.2), rf"locks/publish\.json.*{os.getpid()}")
        with opened(s3).lock("another"):
            pass


def test_a_lock_that_is_held_on_to_is_not_taken_over(s3: str) -> None:
    with opened(s3, lease=4).lock("publish"):
        time.sleep(6)
        refused(opened(s3, lease=4, patience=0), r"locks/publish\.json")


def test_who_lost_the_lock_writes_nothing_more(s3: str) -> None:
    store, lock = opened(s3, lease=1), "locks/publish.json"

    def lose_it() -> None:
        with store.lock("publish"):
            opened(s3).put(lock, b"somebody took over")
            time.sleep(1)
            with pytest.raises(RepositoryError, match=r"locks/publish\.json"):
                store.put("k", b"x")

    with pytest.raises(RepositoryError, match=r"locks/publish\.json"):
        lose_it()
    assert store.size("k") is None
    assert store.get(lock) == b"somebody took over"


def test_publishers_that_try_a_server_at_once_do_not_disturb_each_other(s3: str) -> None:
    failures: list[RepositoryError] = []

    def attempt() -> None:
        try:
            opened(s3).check_writable()
        except RepositoryError as error:
            failures.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert list(opened(s3).list("")) == []


@pytest.mark.parametrize(
    ("keeps", "ignored"),
    [
        (set(), r"If-None-Match: \*"),
        ({"put"}, "writers that race"),
        ({"put", "race"}, "If-Match"),
        ({"put", "race", "tag"}, "even if they name the object's ETag"),
        ({"put", "race", "tag", "own"}, "If-None-Match of multipart uploads"),
    ],
)
def test_a_server_that_ignores_conditions_is_not_published_to(
    s3: str, monkeypatch: pytest.MonkeyPatch, keeps: set[str], ignored: str
) -> None:
    CarelessS3.objects, CarelessS3.keeps = {}, keeps
    with serving(CarelessS3) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        with pytest.raises(RepositoryError, match=ignored):
            opened(s3).check_writable()
        assert not CarelessS3.objects
        CarelessS3.keeps = {"put", "race", "tag", "own", "parts"}
        opened(s3).check_writable()


def test_a_proxy_that_strips_conditions_is_found_before_builds(
    s3: str,
    zoo_farm: ZooFarm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    StrippingProxy.upstream, StrippingProxy.requests = os.environ["AWS_ENDPOINT_URL_S3"], []
    with serving(StrippingProxy) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        with raises_golden(RepositoryError, "stores_s3/strips-conditions", {s3: "URL"}):
            opened(s3).check_writable()
        assert opened(s3).put("k", b"x")  # other writes do arrive
        StrippingProxy.requests.clear()
        manifests = ("--manifests", str(MANIFESTS))
        assert zoo_farm(*manifests, "zoo", "--store", s3, "--gpu", "cpu", "--models", SMALL) != 0
        assert [entry.key for entry in opened(s3).list("")] == ["k"]
    assert "a proxy before this server" in capsys.readouterr().err
    writes = [asked for asked in StrippingProxy.requests if asked.startswith(("PUT", "POST"))]
    assert all("/probes/" in asked for asked in writes), writes


def test_uploads_in_parts_decide_nothing(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers let several racing uploads win; so only files named by their digest are sent so."""
    keys = list[str]()
    send = Upload.send

    def watched(self: Upload, path: Path, size: int, progress: Progress | None) -> None:
        assert sha256_file(path) in self._at["Key"]
        keys.append(self._at["Key"])
        send(self, path, size, progress)

    monkeypatch.setattr(Upload, "send", watched)
    monkeypatch.setattr("zoo.stores.s3.store.PART", 16)
    signed = Signed(tmp_path / "farm", url=s3)
    signed.release("m", b"engine of more than a part")
    mirror(signed.client(), open_store(f"{s3}-mirror"), Filter())
    assert signed.pulled(signed.client("reader", store=open_store(f"{s3}-mirror")))
    written = [entry.key for entry in open_store(s3).list("")]
    assert len(keys) >= 2
    assert all("/blobs/sha256/" in key for key in keys)
    assert {"locks/publish.json", "metadata/timestamp.json"} <= set(written)  # and were not among


def test_racing_uploads_of_one_digest_are_that_file(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.stores.s3.store.PART", 16)
    content = os.urandom(1000)
    for number in range(8):
        (tmp_path / f"{number}").write_bytes(content)
    start = threading.Barrier(8)

    def add(number: int) -> Blob:
        start.wait()
        return Blobs(opened(s3)).add(tmp_path / f"{number}")

    with ThreadPoolExecutor(8) as pool:
        (blob,) = set(pool.map(add, range(8)))
    assert opened(s3).get(blob_key(blob.sha256)) == content
    assert not list(opened(s3).abandoned(soon()))
