"""S3 servers beside SeaweedFS, judged before any work: ``make test-ceph``.

They are not among the other tests: Ceph comes from Debian's packages, moto from a folder of tools.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import ZooFarm
from support.models import SMALL
from support.other_s3 import CephGateway, MotoServer
from support.paths import MANIFESTS
from support.s3_features import features
from support.s3_server import BUCKET

from zoo.stores.s3.connect import open_s3
from zoo.util.errors import RepositoryError

pytestmark = [pytest.mark.ceph, pytest.mark.timeout(600)]

ROUNDS = 10
NEVER, ALWAYS = 0, ROUNDS


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephGateway]:
    with CephGateway(tmp_path_factory.mktemp("ceph")) as gateway:
        yield gateway


@pytest.fixture
def ceph_url(ceph: CephGateway, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in ceph.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/ceph"


@pytest.fixture
def moto_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with MotoServer(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{BUCKET}/moto"


def test_ceph_16_keeps_what_the_table_says(
    ceph: CephGateway, ceph_url: str, tmp_path: Path
) -> None:
    if not ceph.version.startswith("16."):
        pytest.skip(f"the table is about Ceph 16; this is {ceph.version}")
    assert features(open_s3(BUCKET, "features"), tmp_path, ROUNDS) == {
        "create": ALWAYS,
        "create, racing": ALWAYS,
        "replace": ALWAYS,
        "replace, own tag": NEVER,
        "complete": NEVER,
        "complete, racing": NEVER,
    }


def test_ceph_16_is_refused_before_anything_is_built(
    ceph: CephGateway, ceph_url: str, zoo_farm: ZooFarm, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_s3(BUCKET, "ceph")
    with pytest.raises(RepositoryError, match="even if they name the object's ETag"):
        store.check_writable()
    command = ("zoo", "--store", ceph_url, "--gpu", "cpu", "--models", SMALL)
    assert zoo_farm("--manifests", str(MANIFESTS), *command) != 0
    assert "even if they name the object's ETag" in capsys.readouterr().err
    assert list(store.list("")) == []


def test_ceph_16_serves_readers(ceph: CephGateway, ceph_url: str, tmp_path: Path) -> None:
    store = open_s3(BUCKET, "read")
    content = bytes(range(256)) * (36 << 10)  # of two parts
    (tmp_path / "file").write_bytes(content)
    assert store.put_file("a/large", tmp_path / "file")
    store.fetch("a/large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert [entry.key for entry in store.list("a/")] == ["a/large"]
    store.delete("a/large")


def test_moto_keeps_what_the_table_says(moto_url: str, tmp_path: Path) -> None:
    store = open_s3(BUCKET, "moto")
    store.check_writable()
    found = features(store, tmp_path, ROUNDS)
    assert found.pop("complete, racing") < ROUNDS
    assert set(found.values()) == {ALWAYS}
