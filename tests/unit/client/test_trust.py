"""Attacks on a signed repository: each is refused before anything is loaded, in words."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.goldens import assert_golden, raises_golden
from support.signed_repository import Signed, other_ring, publish_many
from tuf.api import exceptions as tuf

from zoo.cli import doctor
from zoo.client.roots import TrustHome, read_root, trusted_root
from zoo.schema.layout import FIRST_ROOT
from zoo.stores import LocalStore
from zoo.util.digest import sha256_bytes, sha256_file
from zoo.util.errors import RepositoryError, TooLongError, TrustError, UsageError


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    made = Signed(tmp_path)
    made.release()
    return made


def flip(path: Path, where: float) -> None:
    data = bytearray(path.read_bytes())
    data[int((len(data) - 1) * where)] ^= 1
    path.write_bytes(data)


def test_what_is_signed_is_given(signed: Signed) -> None:
    client = signed.client()
    assert [row.model for row in client.index().models] == ["m"]
    assert signed.pulled(client) == b"engine"
    with raises_golden(UsageError, "client/no-model", match="'n'"):
        client.model("n")
    with pytest.raises(UsageError, match=r"\.\./m"):
        client.model("../m")


def test_what_is_proposed_is_not_seen(signed: Signed) -> None:
    signed.propose(signed.build("m", b"newer"))
    signed.propose(signed.build("other"))
    assert signed.pulled(signed.client()) == b"engine"
    with pytest.raises(UsageError, match="'other'"):
        signed.client().model("other")


@pytest.mark.parametrize(
    "pattern",
    [
        "blobs/sha256/*/{engine}", "records/m/*.json", "index/*.m.json", "*.index.json",
        "metadata/timestamp.json", "metadata/*.snapshot.json", "metadata/*.targets.json",
        "metadata/*.bin-*.json",
    ],
)  # fmt: skip
def test_a_flipped_byte_is_noticed_anywhere(signed: Signed, pattern: str) -> None:
    files = list((signed.folder / "store").glob(pattern.format(engine=sha256_bytes(b"engine"))))
    assert files
    for number in range(26):
        for path in files:
            flip(path, number / 25)
        client = signed.client(f"home-{number}")
        with pytest.raises((TrustError, RepositoryError)) as caught:
            (client.index(), signed.pulled(client))
        assert caught.value.hint
        assert not list((signed.folder / f"home-{number}/cache").glob("engines/*"))
        for path in files:
            flip(path, number / 25)
    assert signed.pulled(signed.client()) == b"engine"


def test_an_older_index_is_refused(signed: Signed) -> None:
    old = signed.folder / "old"
    shutil.copytree(signed.folder / "store", old)
    signed.release(content=b"newer")
    client = signed.client()
    assert signed.pulled(client) == b"newer"
    rolled_back = signed.client(store=LocalStore(old))
    with raises_golden(TrustError, "client/older-index") as rollback:
        rolled_back.index()
    assert isinstance(rollback.value.__cause__, tuf.BadVersionNumberError)
    # The keys' owner notices too, and signs nothing on top of it.
    shutil.rmtree(signed.folder / "store")
    shutil.copytree(old, signed.folder / "store")
    with raises_golden(TrustError, "client/older-index-to-sign"):
        signed.publish(refresh=True)


def test_a_frozen_index_is_refused_when_it_is_expired(tmp_path: Path) -> None:
    signed = Signed(tmp_path)
    signed.later(days=-8)  # it was signed eight days ago, and nobody has refreshed it
    signed.release()
    with raises_golden(TrustError, "client/expired", match="--allow-stale"):
        signed.client().index()
    assert signed.pulled(signed.client("patient", allow_stale=True)) == b"engine"
    signed.later(days=8)
    signed.publish(refresh=True)
    assert signed.pulled(signed.client()) == b"engine"


def test_parts_that_do_not_belong_together_are_refused(signed: Signed) -> None:
    older = signed.find("metadata/*.snapshot.json").read_bytes()
    signed.release(content=b"newer")
    newest = max((signed.folder / "store/metadata").glob("*.snapshot.json"))
    newest.write_bytes(older)
    with raises_golden(TrustError, "client/mixed-parts") as mixed:
        signed.client().index()
    assert isinstance(mixed.value.__cause__, tuf.LengthOrHashMismatchError)


def test_another_index_than_the_signed_one_is_refused(signed: Signed) -> None:
    path = signed.find("index/*.m.json")
    path.write_bytes(path.read_bytes().replace(b'"apache-2.0"', b'"apache-2.1"'))
    with raises_golden(TrustError, "client/other-index", match=re.escape(path.name)):
        signed.client().model("m")


@pytest.mark.parametrize("name", ["metadata/timestamp.json", "index/*.m.json", "records/m/*.json"])
def test_endless_data_is_not_read_to_its_end(signed: Signed, name: str) -> None:
    with signed.find(name).open("ab") as file:
        file.truncate(2**34)  # 16 GiB of nothing
    client = signed.client()
    with pytest.raises((TrustError, TooLongError), match=name.rpartition("*")[2]):
        signed.pulled(client)


def test_an_endless_engine_is_not_read_to_its_end(signed: Signed) -> None:
    with signed.find(f"blobs/sha256/*/{sha256_bytes(b'engine')}").open("ab") as file:
        file.truncate(2**34)
    with raises_golden(TooLongError, "client/endless-engine", match=r"\b6\b"):
        signed.pulled(signed.client())
    assert not list((signed.folder / "home/cache/engines").iterdir())


def test_an_engine_cut_short_is_refused(signed: Signed) -> None:
    signed.find(f"blobs/sha256/*/{sha256_bytes(b'engine')}").write_bytes(b"engi")
    with raises_golden(RepositoryError, "client/engine-cut-short"):
        signed.pulled(signed.client())


def test_a_key_that_is_not_in_the_root_is_refused(signed: Signed, tmp_path: Path) -> None:
    shutil.rmtree(signed.folder / "store/metadata")
    root = signed.ring.root_file.read_bytes()
    mine = signed.ring
    signed.ring = other_ring(tmp_path / "thief")
    signed.propose(signed.build("m", b"evil"))
    signed.publish()
    signed.ring = mine
    with raises_golden(TrustError, "client/other-keys") as unsigned:
        signed.client(root=root).model("m")
    assert isinstance(unsigned.value.__cause__, tuf.UnsignedMetadataError)
    with raises_golden(TrustError, "client/other-keys-to-sign"):
        signed.publish()


@pytest.mark.parametrize("target", ["../m", "/etc/passwd", "s3://other/m", "M", "a/b"])
def test_a_candidate_that_points_outside_is_refused(signed: Signed, target: str) -> None:
    key = signed.propose(signed.build("m", b"newer"))
    path = signed.path(key)
    path.write_text(path.read_text().replace('"model":"m"', f'"model":"{target}"').replace(
        '"model": "m"', f'"model": "{target}"'
    ))  # fmt: skip
    published = signed.publish()
    assert "model" in published.refused[key]
    assert signed.pulled(signed.client()) == b"engine"
    assert not signed.path(key).exists()
    assert json.loads(signed.find("refused/m/*.json").read_text())["reason"]


def test_offline_what_was_verified_still_loads(signed: Signed) -> None:
    signed.release("other", b"other engine")
    client = signed.client()
    assert signed.pulled(client) == b"engine"
    shutil.move(signed.folder / "store", signed.folder / "gone")
    said: list[str] = []
    offline = signed.client(store=Unreachable(), say=said.append)
    assert signed.pulled(offline) == b"engine"
    assert_golden("client/offline", said[0], {f"{signed.now:%Y-%m-%d}": "DATE"})
    with pytest.raises(RepositoryError, match="no network"):
        offline.model("other")


def test_a_folder_that_is_not_there_is_like_a_server_that_is_not(signed: Signed) -> None:
    """As on a disk that is not mounted."""
    online = signed.client()
    assert (len(online.index().models), signed.pulled(online)) == (1, b"engine")
    shutil.move(signed.store.url, signed.folder / "gone")
    said: list[str] = []
    client = signed.client(say=said.append)
    assert [row.model for row in client.index().models] == ["m"]
    assert signed.pulled(client) == b"engine"
    assert f"{signed.store.url}: no such folder" in said[0]
    assert len(said) == len({*said})
    Path(signed.store.url).mkdir()  # empty: not a repository
    with pytest.raises(TrustError):
        signed.client().index()


@pytest.mark.parametrize("name", ["index.json", "index%2Fm.json"])
def test_offline_a_damaged_copy_is_not_used(signed: Signed, name: str) -> None:
    online = signed.client()
    assert (online.index().models[0].model, signed.pulled(online)) == ("m", b"engine")
    (copy,) = signed.folder.rglob(f"verified/{name}")
    data = copy.read_bytes()
    copy.write_bytes(data.replace(b'"m"', b'"n"'))
    offline = signed.client(store=Unreachable())
    with pytest.raises(RepositoryError, match=re.escape(str(copy))) as caught:
        (offline.index(), offline.model("m"))
    assert caught.value.hint
    hidden = {copy: "COPY", signed.store.url: "STORE"}
    assert_golden("client/damaged-copy", caught.value, hidden)
    online = signed.client()
    assert (online.index().models[0].model, signed.pulled(online)) == ("m", b"engine")
    assert copy.read_bytes() == data
    assert signed.pulled(signed.client(store=Unreachable())) == b"engine"


def test_the_doctor_notices_a_repository_that_does_not_answer(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "connect", lambda url, say: signed.client(say=say))
    assert next(doctor.store("s3://zoo")).state == "ok"
    unreachable = Unreachable()
    monkeypatch.setattr(
        doctor, "connect", lambda url, say: signed.client(store=unreachable, say=say)
    )
    found = next(doctor.store("s3://zoo"))
    assert (found.check, found.state) == ("store", "fail")
    assert_golden("client/doctor-offline", found.found, {f"{signed.now:%Y-%m-%d}": "DATE"})


def test_after_expiry_what_was_verified_loads_and_what_is_new_does_not(tmp_path: Path) -> None:
    signed = Signed(tmp_path)
    signed.later(days=-6, hours=-23, minutes=-59, seconds=-55)
    signed.release()
    signed.release("other", b"other engine")
    client = signed.client()
    assert signed.pulled(client) == b"engine"
    client.model("other")  # its index is read, its engine is not fetched
    forward_timestamp(signed, -timedelta(days=1))
    expired = signed.client()
    assert signed.pulled(expired) == b"engine"
    with raises_golden(TrustError, "client/expired-and-new"):
        signed.pulled(expired, "other")
    assert signed.pulled(signed.client(allow_stale=True), "other") == b"other engine"


def forward_timestamp(signed: Signed, by: timedelta) -> None:
    """Signs a timestamp that has expired, as a thief of time would keep it."""
    signed.now += by
    signed.publish(refresh=True)


class Unreachable:
    """A store behind a cable that was pulled."""

    url = "https://example.org/zoo"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def fail(*arguments: Any, **named: Any) -> Any:
            raise RepositoryError(f"{self.url}: no network")

        return fail


def test_trust_is_given_once(signed: Signed, tmp_path: Path) -> None:
    home = TrustHome(roots=tmp_path / "roots", verified=tmp_path / "verified")
    digest = sha256_file(signed.path(FIRST_ROOT))
    with raises_golden(TrustError, "client/not-trusted-yet", match=f"--trust {digest}"):
        trusted_root(signed.store, home, None)
    root = trusted_root(signed.store, home, f"sha256:{digest}")
    assert trusted_root(signed.store, home, None) == root
    with raises_golden(TrustError, "client/other-root", match=digest):
        read_root(signed.store, "0" * 64)
    with raises_golden(TrustError, "client/no-repository"):
        read_root(LocalStore(tmp_path / "empty"), digest)
    with raises_golden(TrustError, "client/no-root-file"):
        read_root(signed.store, str(tmp_path / "nothing.json"))
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(TrustError, match=r"no\.json"):
        read_root(signed.store, str(tmp_path / "no.json"))


class Counting:
    """A store that counts what is read from it."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self.read = 0

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        data = self._store.get(key, limit=limit)
        self.read += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_one_engine_of_20_000_costs_little_to_learn_about(tmp_path: Path) -> None:
    signed = Signed(tmp_path, bins=16)
    publish_many(signed, models=1000)
    counting: Any = Counting(LocalStore(tmp_path / "store"))
    assert len(signed.client(store=counting).model("model_500").engines) == 20
    assert counting.read < 200_000


def test_a_copy_is_shown_although_the_metadata_beside_it_is_damaged(signed: Signed) -> None:
    signed.client().model("m")
    shutil.rmtree(signed.folder / "store")
    (signed.folder / "home" / "verified" / "metadata" / "timestamp.json").write_bytes(b"{")
    offline = signed.client()
    assert offline.model("m").current
    assert offline.signed.expires() is None
    assert offline.signed.signers() == ()
