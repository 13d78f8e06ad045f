"""Builders: their keys, their signatures, and whose attestations count."""

from __future__ import annotations

import json
import os
from base64 import encodebytes
from pathlib import Path
from typing import Any

import pytest
from support.commands import ZooFarm
from support.goldens import assert_golden
from support.records import attestation, engine_entry, model_index
from support.signed_repository import Signed, no_passphrase

from builders.publish.builder_list import Builder
from builders.publish.keys import builder_elsewhere, load_builder, new_builder, write_public
from builders.publish.registered import read_file, stated_builders
from builders.publish.signatures import is_signed, sign
from zoo.catalog.engine_page import history
from zoo.schema.records import Attestation, Signature
from zoo.util.errors import TrustError

RECORD = "8" * 64


def builder(folder: Path, name: str = "b") -> Builder:
    return new_builder(folder / f"{name}.pem", name, None)


def signed_by(folder: Path, name: str = "b") -> Attestation:
    signer = load_builder(folder / f"{name}.pem", no_passphrase)
    return sign(attestation(), signer, RECORD)


def test_what_a_builder_signed_is_read_back(tmp_path: Path) -> None:
    one = builder(tmp_path)
    made = signed_by(tmp_path)
    read = Attestation.model_validate_json(made.to_json())
    assert read == made
    assert read.signature is not None
    assert read.signature.record == RECORD
    assert is_signed(read, (one,))


CHANGES: dict[str, dict[str, Any]] = {
    "engine": {"engine": "9" * 64},
    "time": {"time": "2027-01-01T00:00:00.000000Z"},
    "kind": {"kind": "benchmarked"},
    "numbers": {"body": {"batches": []}},
    "another field": {"more": 1},
    "record": {"signature": {"record": "9" * 64}},
    "no record": {"signature": {"record": None}},
    "value": {"signature": {"value": "00" * 64}},
    "no value": {"signature": {"value": ""}},
    "no digits": {"signature": {"value": "none"}},
    "builder": {"signature": {"builder": "another"}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_attestation_is_not_signed(tmp_path: Path, change: str) -> None:
    one = builder(tmp_path)
    stated = json.loads(signed_by(tmp_path).to_json())
    for name, value in CHANGES[change].items():
        stated[name] = {**stated[name], **value} if name == "signature" else value
    assert not is_signed(Attestation.model_validate(stated), (one,))


def test_only_registered_builders_count(tmp_path: Path) -> None:
    other = builder(tmp_path, "other")
    builder(tmp_path)
    assert not is_signed(signed_by(tmp_path), ())
    assert not is_signed(signed_by(tmp_path), (other,))
    assert not is_signed(attestation(), (other,))


def test_an_attestation_without_a_signature_is_as_before(tmp_path: Path) -> None:
    assert "signature" not in json.loads(attestation().to_json())
    with_none = attestation().model_copy(update={"signature": None})
    assert with_none.digest == attestation().digest
    builder(tmp_path)
    assert signed_by(tmp_path).digest != attestation().digest


def test_a_signature_of_a_later_version_keeps_its_fields() -> None:
    later = Signature.model_validate({"builder": "b", "value": "00", "log": "an entry"})
    assert later.model_dump()["log"] == "an entry"


def test_a_new_key_is_made_once(tmp_path: Path) -> None:
    assert builder(tmp_path) == builder(tmp_path)
    assert (tmp_path / "b.pem").stat().st_mode & 0o077 == 0
    (tmp_path / "b.pem").write_text("no key")
    with pytest.raises(TrustError):
        builder(tmp_path)


def test_the_first_builder_is_registered_with_the_first_signature(signed: Signed) -> None:
    signed.release()
    (one,) = stated_builders(signed.store) or ()
    assert (one,) == read_file(signed.ring.builders_file)
    assert one == new_builder(signed.ring.builder_file, "first", None)


def command(signed: Signed, zoo_farm: ZooFarm, *arguments: str) -> int:
    folders = ("--store", signed.store.url, "--keys", str(signed.ring.folder))
    return zoo_farm("builders", *arguments, *folders)


def test_builders_are_added_listed_and_removed(
    signed: Signed, zoo_farm: ZooFarm, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ZOO_HOME", str(signed.folder / "home"))
    signed.release()
    public = signed.folder / "public.pem"
    assert zoo_farm("builders", "key", "--output", str(public)) == 0
    assert command(signed, zoo_farm, "add", "second", str(public)) == 0
    names = [one.name for one in stated_builders(signed.store) or ()]
    assert names == ["first", "second"]
    capsys.readouterr()
    assert zoo_farm("builders", "list", "--store", signed.store.url) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names
    assert command(signed, zoo_farm, "add", "third", str(public)) != 0
    assert_golden("publish/builder-twice", capsys.readouterr().err)
    assert command(signed, zoo_farm, "remove", "third") != 0
    assert_golden("publish/builder-unknown", capsys.readouterr().err)
    for name in names:
        assert command(signed, zoo_farm, "remove", name) == 0
    assert stated_builders(signed.store) == ()
    capsys.readouterr()
    assert zoo_farm("builders", "--store", signed.store.url) == 0
    assert_golden("publish/builders-none", capsys.readouterr().out)
    assert signed.client().model("m").engines  # clients go on


def test_builders_are_added_before_the_first_signature(signed: Signed, zoo_farm: ZooFarm) -> None:
    other = signed.folder / "other.pem"
    new_builder(other, "", None)
    assert command(signed, zoo_farm, "remove", "first") == 0
    assert command(signed, zoo_farm, "add", "again") == 0
    signed.release()
    assert [one.name for one in stated_builders(signed.store) or ()] == ["again"]


def test_a_key_of_another_type_is_refused(
    signed: Signed, zoo_farm: ZooFarm, capsys: pytest.CaptureFixture[str]
) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = generate_private_key(SECP256R1()).public_key()
    file = signed.folder / "public.pem"
    file.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    signed.release()
    assert command(signed, zoo_farm, "add", "b", str(file)) == TrustError.exit_code
    assert_golden("publish/builder-ecdsa", capsys.readouterr().err)


def test_a_builders_key_that_can_not_be_one_is_a_sentence(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    builder(tmp_path)
    own = tmp_path / "b.pem"
    private = load_pem_private_key(own.read_bytes(), None)
    other = generate_private_key(SECP256R1())
    form = (PrivateFormat.PKCS8, NoEncryption())
    unknown = private.private_bytes(Encoding.DER, *form).replace(b"\x2b\x65\x70", b"\x2b\x65\x7f")
    for content in (
        other.private_bytes(Encoding.PEM, *form),
        b"-----BEGIN PRIVATE KEY-----\n%s-----END PRIVATE KEY-----\n" % encodebytes(unknown),
    ):
        own.write_bytes(content)
        for use in (
            lambda: load_builder(own, no_passphrase),
            lambda: new_builder(own, "b", None),
            lambda: write_public(own, tmp_path / "public.pem", no_passphrase),
            lambda: builder_elsewhere("b", own),
        ):
            with pytest.raises(TrustError, match=r"b\.pem"):
                use()
    own.unlink()
    os.mkfifo(own)
    for wait in (lambda: load_builder(own, no_passphrase), lambda: builder_elsewhere("b", own)):
        with pytest.raises(TrustError, match="not a regular file"):
            wait()


def test_a_damaged_list_of_builders_is_a_sentence(
    signed: Signed, zoo_farm: ZooFarm, capsys: pytest.CaptureFixture[str]
) -> None:
    signed.release()
    signed.path("metadata/timestamp.json").write_bytes(b"[")
    assert zoo_farm("builders", "list", "--store", signed.store.url) == TrustError.exit_code
    assert "its list of builders can't be read" in capsys.readouterr().err


def test_the_catalog_tells_only_what_the_index_names() -> None:
    told = attestation(time="2026-01-02T00:00:00.000000Z")
    left = attestation(time="2026-01-03T00:00:00.000000Z")
    for named, times in (((told.short,), {told.time}), ((), {told.time, left.time})):
        entry = engine_entry("cpu-ort1.32-fp32", attested=named)
        events = history(model_index(entry), [entry], [told, left])
        assert {event.time for event in events} - {entry.created} == times
