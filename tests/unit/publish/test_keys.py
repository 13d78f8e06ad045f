"""Keys: they are rotated, renewed, revoked, elsewhere, and never where everybody reads."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from support.commands import ZooFarm
from support.goldens import assert_golden, raises_golden
from support.signed_repository import Signed, no_passphrase, other_ring

from builders.publish.keys import PASSPHRASE, KeyRing, key_elsewhere, make_keys, new_key
from builders.publish.signer import open_desk
from builders.publish.tuf_files import MetadataFiles
from builders.publish.tuf_metadata import SignedMetadata
from zoo.util.errors import TrustError, UsageError


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    made = Signed(tmp_path)
    made.release()
    return made


@pytest.mark.parametrize("role", ["root", "targets", "publisher"])
def test_readers_follow_when_a_key_is_rotated(signed: Signed, role: Any) -> None:
    first_root = signed.ring.root_file.read_bytes()
    client = signed.client(root=first_root)
    assert signed.pulled(client) == b"engine"
    metadata = SignedMetadata(signed.store, signed.ring)
    assert metadata.load()
    metadata.rotate(role, new_key(signed.ring.folder, role, None))
    signed.release(content=b"newer")
    assert signed.pulled(signed.client(root=first_root)) == b"newer"
    assert signed.pulled(signed.client("new")) == b"newer"


def test_a_revoked_key_signs_nothing_more(signed: Signed, tmp_path: Path) -> None:
    shutil.copytree(signed.ring.folder, tmp_path / "stolen")
    metadata = SignedMetadata(signed.store, signed.ring)
    metadata.load()
    metadata.rotate("publisher", new_key(signed.ring.folder, "publisher", None))
    stolen = type(signed.ring)(tmp_path / "stolen", ask=lambda what: "")
    signed.propose(signed.build("m", b"evil"))
    with raises_golden(TrustError, "publish/revoked-key"):
        SignedMetadata(signed.store, stolen).load()


def test_a_signature_is_renewed_and_the_key_stays(
    signed: Signed, capsys: pytest.CaptureFixture[str], zoo_farm: ZooFarm
) -> None:
    place = ["--store", signed.store.url, "--keys", str(signed.folder / "keys")]
    keys = {entry.role: entry.keyid for entry in signed.ring.file.keys}
    first_root = signed.ring.root_file.read_bytes()
    for role in ("root", "targets"):
        assert zoo_farm("keys", "renew", role, *place) == 0
    assert re.search(r"^root: .*\d{4}-\d\d-\d\d", capsys.readouterr().out, re.MULTILINE)
    assert zoo_farm("keys", "renew", "rot", *place) == UsageError.exit_code
    assert_golden("publish/unknown-role", capsys.readouterr().err)
    signed.ring = KeyRing(signed.ring.folder, ask=no_passphrase)
    assert {entry.role: entry.keyid for entry in signed.ring.file.keys} == keys
    assert len(list((signed.folder / "store/metadata").glob("*.root.json"))) == 3
    signed.release(content=b"newer")
    assert signed.pulled(signed.client(root=first_root)) == b"newer"


def test_a_role_may_move_to_a_key_elsewhere(
    signed: Signed, tmp_path: Path, zoo_farm: ZooFarm, capsys: pytest.CaptureFixture[str]
) -> None:
    pem, public = other_ring(tmp_path / "vault").folder / "publisher.pem", tmp_path / "public.pem"
    write_public(pem, public)
    place = ["--store", signed.store.url, "--keys", str(signed.folder / "keys")]
    turned = zoo_farm(
        "keys", "rotate", "publisher", *place, "--signer", f"file2:{pem}", str(public)
    )
    assert turned == 0
    old = signed.ring.entry("publisher").keyid
    signed.ring = KeyRing(signed.ring.folder, ask=no_passphrase)
    assert signed.ring.entry("publisher").uri == f"file2:{pem}"
    hide: dict[object, str] = {old[:16]: "OLD KEY"}
    hide |= {entry.keyid[:16]: f"{entry.role} KEY" for entry in signed.ring.file.keys}
    assert_golden("publish/rotated-key", capsys.readouterr().out, hide)
    assert zoo_farm("keys", "--keys", str(signed.ring.folder)) == 0
    assert_golden("publish/keys", capsys.readouterr().out, hide)
    unknown = zoo_farm("keys", "revoke", "x", *place)
    assert unknown == UsageError.exit_code
    assert_golden("publish/unknown-key", capsys.readouterr().err, hide)
    signed.release(content=b"newer")
    assert signed.pulled(signed.client()) == b"newer"


def test_a_rotation_that_is_interrupted_is_completed(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = SignedMetadata(signed.store, signed.ring)
    metadata.load()
    with monkeypatch.context() as patch:
        patch.setattr(MetadataFiles, "complete", lambda _: None)  # killed right before it
        metadata.rotate("publisher", new_key(signed.ring.folder, "publisher", None))
    assert signed.pulled(signed.client()) == b"engine"
    signed.ring = type(signed.ring)(signed.ring.folder, ask=lambda what: "")
    signed.release(content=b"newer")
    assert signed.pulled(signed.client()) == b"newer"
    assert not (signed.ring.folder / "rotation.json").exists()


def write_public(private: Path, path: Path) -> None:
    """Writes the public half of a key."""
    public = load_pem_private_key(private.read_bytes(), None).public_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def test_a_key_may_be_elsewhere(tmp_path: Path) -> None:
    """Any signer of securesystemslib will do: here, one that reads a file of its own."""
    ring = other_ring(tmp_path / "vault")
    pem = tmp_path / "vault/publisher.pem"
    write_public(pem, tmp_path / "public.pem")
    entry = key_elsewhere("publisher", f"file2:{pem}", tmp_path / "public.pem")
    assert entry.keyid == ring.entry("publisher").keyid
    signed = Signed(tmp_path / "s")
    signed.ring = make_keys(tmp_path / "keys", None, ask=no_passphrase, bins=2, signers=[entry])
    assert not (tmp_path / "keys/publisher.pem").exists()
    signed.release()
    assert signed.pulled(signed.client()) == b"engine"
    with pytest.raises(TrustError, match="ftp:x") as caught:
        key_elsewhere("publisher", "ftp:x", tmp_path / "public.pem")
    assert_golden("publish/no-signer", caught.value.message)


def test_keys_are_encrypted_with_a_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(tmp_path / "keys", "open sesame", ask=lambda what: "", bins=2)
    for path in (tmp_path / "keys").glob("*.pem"):
        assert b"ENCRYPTED" in path.read_bytes()
        assert path.stat().st_mode & 0o77 == 0
    signed = Signed(tmp_path / "s")
    for wrong in ("", "sesame"):
        signed.ring = KeyRing(tmp_path / "keys", ask=lambda what, said=wrong: said)
        with pytest.raises(TrustError, match=r"root\.pem") as caught:
            signed.publish()
        assert_golden("publish/wrong-passphrase", caught.value.hint)
    monkeypatch.setenv(PASSPHRASE, "open sesame")
    signed.ring = KeyRing(tmp_path / "keys", ask=lambda what: "")
    signed.release()


def test_a_passphrase_is_asked_for_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zoo_farm: ZooFarm
) -> None:
    store, keys = tmp_path / "s", tmp_path / "s.keys"
    make_keys(keys, "open sesame", ask=no_passphrase, bins=2)
    monkeypatch.setenv(PASSPHRASE, "sesame")
    for folder in ("", str(keys)):
        with pytest.raises(TrustError, match=r"publisher\.pem") as caught:
            open_desk(str(store), folder, print)
        assert PASSPHRASE in (caught.value.hint or "")
    # A key that can't be replaced leaves no half of the new one.
    before = sorted(path.name for path in keys.iterdir())
    monkeypatch.setenv(PASSPHRASE, "open sesame")
    signed = Signed(tmp_path / "made")
    signed.ring = KeyRing(keys, ask=no_passphrase)
    signed.release()
    monkeypatch.setenv(PASSPHRASE, "sesame")
    assert (
        zoo_farm("keys", "rotate", "root", "--keys", str(keys), "--store", signed.store.url) == 16
    )
    assert {path.name for path in keys.glob("*.pem")} == {n for n in before if ".pem" in n}


def test_keys_do_not_lie_where_everybody_reads(signed: Signed) -> None:
    inside = signed.folder / "store" / "keys"
    with raises_golden(TrustError, "publish/new-keys-inside"):
        make_keys(inside, None, ask=no_passphrase)
    (signed.folder / "keys").rename(inside)
    with raises_golden(TrustError, "publish/keys-inside"):
        open_desk(signed.store.url, str(inside), print)
    (signed.folder / "full").mkdir()
    (signed.folder / "full" / "notes.txt").touch()
    with raises_golden(TrustError, "publish/keys-in-used-folder"):
        make_keys(signed.folder / "full", None, ask=no_passphrase)


@pytest.fixture
def interrupted(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> Signed:
    """A repository whose key rotation was killed right before it wrote anything."""
    metadata = SignedMetadata(signed.store, signed.ring)
    metadata.load()
    with monkeypatch.context() as patch:
        patch.setattr(MetadataFiles, "complete", lambda _: None)
        metadata.rotate("publisher", new_key(signed.ring.folder, "publisher", None))
    return signed


def stored(signed: Signed) -> dict[str, bytes]:
    return {entry.key: signed.store.get(entry.key) for entry in signed.store.list("")}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], r"Unterminated string"),
        (lambda text: text.replace("publisher", "publisheR", 1), r"it does not match its digest"),
        (lambda text: "[" * 100_000, r"it is nested more than"),
        (lambda text: '{"keys": "", "root": "", "files": {}}', r"Invalid JSON"),
    ],
)
def test_a_damaged_journal_writes_nothing(
    interrupted: Signed, damage: Callable[[str], str], said: str
) -> None:
    path, before = interrupted.ring.folder / "rotation.json", stored(interrupted)
    sound = path.read_text()
    path.write_text(damage(sound))
    with pytest.raises(TrustError, match=rf"rotation\.json: .* damaged: {said}"):
        interrupted.publish()
    assert stored(interrupted) == before
    path.write_text(sound)
    interrupted.ring = KeyRing(interrupted.ring.folder, ask=no_passphrase)
    interrupted.release(content=b"newer")
    assert interrupted.pulled(interrupted.client()) == b"newer"


def test_a_journal_of_an_earlier_version_has_no_digest(interrupted: Signed) -> None:
    path = interrupted.ring.folder / "rotation.json"
    journal = json.loads(path.read_bytes())
    del journal["sha256"]
    path.write_text(json.dumps(journal))
    interrupted.ring = KeyRing(interrupted.ring.folder, ask=no_passphrase)
    interrupted.release(content=b"newer")
    assert interrupted.pulled(interrupted.client()) == b"newer"


@pytest.mark.parametrize(
    ("name", "text"), [("root.json", "{}"), ("seen.json", '{"url": "3"}'), ("seen.json", "[")]
)
def test_a_damaged_file_beside_the_keys_is_named(interrupted: Signed, name: str, text: str) -> None:
    before = stored(interrupted)
    (interrupted.ring.folder / name).write_text(text)
    with pytest.raises(TrustError, match=rf"keys/{name}: .* damaged"):
        interrupted.publish()
    if name == "root.json":  # otherwise the rotation was completed first
        assert stored(interrupted) == before
