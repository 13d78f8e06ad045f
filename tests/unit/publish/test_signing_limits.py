"""What signers refuse to sign because readers would refuse it, and signatures that are long."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from support.goldens import raises_golden
from support.signed_repository import Signed
from tuf.api.metadata import Metadata, TargetFile, Timestamp

from builders.publish.signing_limits import CLOCK_IS_RIGHT
from builders.publish.tuf_metadata import SignedMetadata
from zoo.util.errors import TrustError


def test_a_signer_whose_clock_is_behind_leaves_a_good_timestamp(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed.release()
    good = signed.store.get("metadata/timestamp.json")
    signed.later(days=-30)
    with raises_golden(TrustError, "publish/clock-behind", _times(signed)):
        signed.publish(refresh=True)
    assert signed.store.get("metadata/timestamp.json") == good
    assert signed.pulled(signed.client()) == b"engine"
    signed.later(days=29, hours=2)  # 22 hours behind: what it signs can be read for days
    signed.publish(refresh=True)
    assert signed.pulled(signed.client("after")) == b"engine"
    signed.later(days=-30)
    monkeypatch.setenv(CLOCK_IS_RIGHT, "1")
    signed.publish(refresh=True)  # the other one's clock was ahead


def _times(signed: Signed) -> dict[str, str]:
    then = signed.now + timedelta(days=30)
    return {f"{signed.now:%Y-%m-%d %H:%M}": "NOW", f"{then:%Y-%m-%d %H:%M}": "THEN"}


def test_repositories_without_the_time_of_signing_are_judged_by_the_store(signed: Signed) -> None:
    signed.release()
    path = signed.path("metadata/timestamp.json")
    metadata = SignedMetadata(signed.store, signed.ring)
    assert metadata.load()
    timestamp = metadata.timestamp
    timestamp.signed.unrecognized_fields.clear()
    timestamp.sign(signed.ring.signer(signed.ring.entry("publisher")))
    path.write_bytes(timestamp.to_bytes())
    assert SignedMetadata(signed.store, signed.ring).load()
    ahead = path.stat().st_mtime + 30 * 86_400
    os.utime(path, (ahead, ahead))
    with pytest.raises(TrustError, match=r"\b30 days\b"):
        SignedMetadata(signed.store, signed.ring).load()


def test_readers_accept_a_timestamp_with_long_signatures(signed: Signed) -> None:
    """Three ML-DSA-65 or two ML-DSA-87 signatures are longer than python-tuf's limit."""
    signed.release()
    path = signed.path("metadata/timestamp.json")
    timestamp = Metadata[Timestamp].from_bytes(path.read_bytes())
    (signature,) = timestamp.signatures.values()
    for number in range(3):
        other = type(signature)(f"{number:064x}", "ab" * 4627)
        timestamp.signatures[other.keyid] = other
    path.write_bytes(timestamp.to_bytes())
    assert path.stat().st_size > 16_384
    assert signed.pulled(signed.client()) == b"engine"


def test_a_timestamp_that_readers_refuse_is_not_written(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed.release()
    good = signed.store.get("metadata/timestamp.json")
    monkeypatch.setattr("builders.publish.signing_limits.TIMESTAMP_LIMIT", len(good) - 10)
    with pytest.raises(TrustError):
        signed.publish(refresh=True)
    assert signed.store.get("metadata/timestamp.json") == good


def test_a_target_signed_with_sha512_alone_is_a_sentence(signed: Signed) -> None:
    signed.release()
    metadata = SignedMetadata(signed.store, signed.ring)
    metadata.load()
    data = metadata.read("index.json")
    assert data is not None
    name = metadata._roles.bin_of("index.json")
    info = TargetFile.from_data("index.json", data, ["sha512"])
    metadata._roles.bin(name).signed.targets["index.json"] = info
    metadata._signer.sign_bin(name)
    metadata.finish()
    with raises_golden(TrustError, "client/sha512-alone"):
        signed.client().index()
    with raises_golden(TrustError, "publish/without-a-sha-256"):
        metadata.read("index.json")
